"""What went wrong between the Hub and the cache, with the command that mends it."""

from __future__ import annotations

import errno
import shlex
import urllib.request
from urllib.parse import urlsplit

from speakup.errors import MissingFile, ModelError
from speakup.models.hub.client import BadAnswer, Cut, RemoteFile, Slow, endpoint, library

_TOKEN = "HF_TOKEN=<your token>"


def fetch_command(words: str, before: str = "") -> str:
    """Write the command that fetches; `before` are settings for it."""
    return f"{before} speakup models fetch {words}".strip()


def explain(error: Exception, file: RemoteFile, model: str, words: str) -> ModelError:
    """Make of whatever a fetch failed by what is wrong, with which model, and what to do.

    Args:
        error: What was raised.
        file: What was to be fetched.
        model: What the user calls the model.
        words: What `speakup models fetch` is to be given.
    """
    if isinstance(error, ModelError):
        return error
    for look in (_refused, _on_disk, _on_the_line):
        said = look(error, file, words)
        if said is not None:
            return (MissingFile if _is_absent(error) else ModelError)(said[0], model, said[1])
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ModelError(
        f"cannot be fetched from the Hub ({reason})",
        model,
        f"{fetch_command(words)} tries again to get {file.origin}",
    )


def _is_absent(error: Exception) -> bool:
    """Tell whether the file alone is missing, also where a mirror says no more than 404."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    names = {kind.__name__ for kind in type(error).__mro__}
    unknown = {"RepositoryNotFoundError", "RevisionNotFoundError"}
    return "EntryNotFoundError" in names or (status == 404 and names.isdisjoint(unknown))


def quoted(*names: str) -> str:
    """Write names as a shell takes them."""
    return " ".join(shlex.quote(name) for name in names)


def _refused(error: Exception, file: RemoteFile, words: str) -> tuple[str, str] | None:
    """Explain an answer that says no."""
    response = getattr(error, "response", None)
    if response is None:
        return None
    from huggingface_hub import errors

    status = int(response.status_code)
    again, page = fetch_command(words), f"{endpoint()}/{file.repository}"
    with_token = fetch_command(words, _TOKEN)
    if isinstance(error, errors.GatedRepoError):
        return (
            f"the Hub gives {file.repository} only to those who have been let in ({status})",
            f"Ask for access at {page}, then {with_token}",
        )
    if isinstance(error, errors.DisabledRepoError):
        return f"the Hub has disabled {file.repository} ({status})", f"See {page}"
    if isinstance(error, errors.RevisionNotFoundError):
        return (
            f"the repository {file.repository} has no revision {file.revision} ({status})",
            f"See {page}, and name another: speakup models fetch hf://{file.repository}@<revision>",
        )
    if isinstance(error, errors.EntryNotFoundError):
        return (
            f"the repository {file.repository} has no {file.name} at {file.revision} ({status})",
            _other_endpoint(words) or f"See {page}/tree/{file.revision}; then {again}",
        )
    if file.sha256 is not None and status in (401, 404):
        problem = f"the Hub does not show {file.origin} ({status})"
        return problem, _other_endpoint(words) or f"See {page}; {with_token}"
    unknown = isinstance(error, errors.RepositoryNotFoundError) or status == 404
    if unknown or (status == 401 and library().get_token() is None):
        problem = "the Hub has no such repository, or does not show it to everyone"
        return f"{problem} ({status})", f"Check the name, {page}; if it is private, {with_token}"
    if status == 401:
        return f"the Hub does not accept the token ({status})", f"Mend it: {with_token}"
    if status == 403:
        return f"the Hub refuses {file.origin} ({status})", f"If you have access, {with_token}"
    if status == 407:
        return (
            f"the proxy {_proxy()} wants a password ({status})",
            f"Put it into HTTPS_PROXY: {again}",
        )
    if status == 429:
        wish = response.headers.get("Retry-After")
        when = f"in {wish} s" if wish else "later"
        return f"the Hub has had too many requests from here ({status})", f"Again {when}: {again}"
    if status >= 500:
        problem = f"the Hub cannot be used: it has an error of its own ({status})"
        return problem, f"Later, {again} gets {file.origin}"
    return f"the Hub refuses {file.origin} ({status})", f"Try again: {again}"


def _on_disk(error: Exception, file: RemoteFile, words: str) -> tuple[str, str] | None:
    """Explain what the cache's folder does not let us do."""
    number = getattr(error, "errno", None)
    if not isinstance(error, OSError) or number is None:
        return None
    cache = library().constants.HF_HUB_CACHE
    elsewhere = fetch_command(words, "HF_HOME=<another folder>")
    if number in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk of the cache is full ({cache})", f"Make room, or {elsewhere}"
    reason = error.strerror or str(error)
    return f"the cache cannot be written: {reason} ({error.filename or cache})", f"Use {elsewhere}"


def _on_the_line(error: Exception, file: RemoteFile, words: str) -> tuple[str, str] | None:
    """Explain what became of the connection, or what came over it."""
    names = {kind.__name__ for kind in type(error).__mro__}
    again = f"{fetch_command(words)} gets {file.origin}"
    host = endpoint()
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if "OfflineModeIsEnabled" in names:
        return "no request may be made", f"Without HF_HUB_OFFLINE, {again}"
    if isinstance(error, Slow) or ("TimeoutException" in names and "ConnectTimeout" not in names):
        limit = library().constants.HF_HUB_DOWNLOAD_TIMEOUT
        more = f"HF_HUB_DOWNLOAD_TIMEOUT={6 * limit} HF_HUB_ETAG_TIMEOUT={6 * limit}"
        patient = fetch_command(words, more)
        return f"the Hub has stopped answering (time-out; {host})", f"More patient: {patient}"
    if not names.isdisjoint({"ProxyError", "NetworkError", "ConnectTimeout"}):
        if "ProxyError" in names or _proxy():
            problem = f"the Hub cannot be reached through the proxy {_proxy()} ({reason})"
            return problem, f"Mend or unset HTTP_PROXY and HTTPS_PROXY; {again}"
        if "CERTIFICATE" in reason:
            problem = f"the Hub cannot be reached: its certificate is not trusted ({reason})"
            return problem, f"Name your network's certificates in SSL_CERT_FILE; {again}"
        return f"the Hub cannot be reached at {host} ({reason})", f"With a network, {again}"
    if isinstance(error, Cut) or "RemoteProtocolError" in names:
        return f"the connection to the Hub broke ({reason})", f"{fetch_command(words)} goes on"
    if isinstance(error, BadAnswer):
        return f"what the Hub gives is wrong: {reason}", _other_endpoint(words) or f"Later, {again}"
    if not names.isdisjoint({"NoHub", "DecodingError", "TooManyRedirects"}):
        problem = f"what answers at {host} speaks not as the Hub does ({reason[:120]})"
        return problem, f"Check HF_ENDPOINT and the network's log-in page; {again}"
    if not names.isdisjoint({"UnsupportedProtocol", "InvalidURL", "LocalProtocolError"}):
        return f"HF_ENDPOINT or a proxy is no address ({reason})", f"Mend it; {again}"
    return None


def _proxy() -> str:
    """Name the proxy between us and the Hub, without its password, or give ""."""
    parts = urlsplit(endpoint())
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    proxies = urllib.request.getproxies()
    address = proxies.get(parts.scheme) or proxies.get("all") or ""
    return address.rpartition("@")[2].rpartition("//")[2]


def _other_endpoint(words: str) -> str:
    """Advise to leave the mirror that HF_ENDPOINT names, if it does."""
    address = endpoint()
    if address == "https://huggingface.co":
        return ""
    return f"HF_ENDPOINT is {address}; without it, try {fetch_command(words)}"
