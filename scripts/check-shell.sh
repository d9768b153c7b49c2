#!/bin/sh
# Every shell script passes shellcheck.
set -eu
cd "$(dirname "$0")/.."

find . \( -name .git -o -name _build -o -name _tools \) -prune -o -type f -print |
    while read -r file; do
        case $(head -n 1 "$file" | tr -d '\0') in
            '#!/bin/sh'* | '#!/bin/bash'* | '#!/usr/bin/env bash'*) echo "$file" ;;
        esac
    done | xargs shellcheck
