#!/usr/bin/env bash
# Clean samples that have no header, as `arecord -t raw` and telephone systems give them.
# Here SoX makes such samples of a file; put your recorder in its place.
# usage: microphone_format.sh INPUT OUTPUT [speakup options...]
set -euo pipefail

source=${1:?usage: microphone_format.sh INPUT OUTPUT [speakup options...]}
target=${2:?usage: microphone_format.sh INPUT OUTPUT [speakup options...]}
shift 2

sox "$source" -t raw -r 16000 -c 1 -e signed-integer -b 16 -L - |
    speakup enhance - --raw 16000:1:s16le -o "$target" "$@"
