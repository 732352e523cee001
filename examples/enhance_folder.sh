#!/usr/bin/env bash
# Enhance every recording of a folder, one after the other; name the ones that failed.
# usage: enhance_folder.sh FOLDER [OUTPUT_FOLDER] [speakup options...]
set -u

source=${1:?usage: enhance_folder.sh FOLDER [OUTPUT_FOLDER] [speakup options...]}
target=${2:-${source%/}_enhanced}
shift $(($# < 2 ? $# : 2))

mkdir -p "$target" || exit 4
failed=()
for recording in "$source"/*.{wav,flac,mp3,m4a,ogg,opus}; do
    [ -f "$recording" ] || continue
    name=$(basename "${recording%.*}")
    speakup enhance "$recording" -o "$target/$name.wav" "$@" || failed+=("$recording")
done

if [ "${#failed[@]}" -gt 0 ]; then
    printf 'could not enhance %s\n' "${failed[@]}" >&2
    exit 1
fi
