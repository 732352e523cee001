#!/usr/bin/env bash
# Clean the sound of anything FFmpeg reads and let SoX write it, with no file in between.
# usage: ffmpeg_to_sox.sh INPUT OUTPUT [speakup options...]
set -euo pipefail

source=${1:?usage: ffmpeg_to_sox.sh INPUT OUTPUT [speakup options...]}
target=${2:?usage: ffmpeg_to_sox.sh INPUT OUTPUT [speakup options...]}
shift 2

ffmpeg -v error -i "$source" -vn -f wav - | speakup enhance - -o - "$@" | sox -t wav - "$target"
