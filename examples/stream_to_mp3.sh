#!/usr/bin/env bash
# Clean a recording and let FFmpeg code it, with filters and settings of FFmpeg's own.
# usage: stream_to_mp3.sh INPUT OUTPUT.mp3 [speakup options...]
set -euo pipefail

source=${1:?usage: stream_to_mp3.sh INPUT OUTPUT.mp3 [speakup options...]}
target=${2:?usage: stream_to_mp3.sh INPUT OUTPUT.mp3 [speakup options...]}
shift 2

speakup enhance "$source" -o - "$@" | ffmpeg -v error -y -i - -b:a 128k "$target"
