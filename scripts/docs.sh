#!/bin/sh
# make docs: the site of the documentation, in _build/site. Ends with status 1 if a link or an anchor leads nowhere.
set -eu
cd "$(dirname "$0")/.."

source=_build/site-source
rm -rf "$source" _build/site
mkdir -p "$source/go"

# What a code host shows, in the folders that it has there.
git ls-files -co --exclude-standard '*.md' docs | while read -r file; do
    [ -e "$file" ] || continue
    mkdir -p "$source/$(dirname "$file")"
    cp "$file" "$source/$file"
done

# Python's Markdown wants a blank line in front of a list, which code hosts do without.
find "$source" -name '*.md' -exec perl -0pi -e 's/(?<=\n)([^\n|>#` -][^\n]*\n)(?=- )/$1\n/g' {} +

scripts/check-edoc.sh
cp -R _build/doc "$source/erlang-doc"
# OTP's behaviours are documented elsewhere.
(cd "$source/erlang-doc" && perl -pi -e 's{href="(\w+\.html)"}{-e $1 ? $& : "href=\"https://www.erlang.org/doc/man/$1\""}ge' ./*.html)

# The text of go doc, a page for each package.
for package in $(go list ./... | grep -v /test/ | grep -v /internal/); do
    page=$(echo "${package#*/}" | tr / -)
    {
        printf '# Package %s\n\n```text\n' "${package#*/}"
        go doc -all "$package"
        printf '```\n'
    } >"$source/go/$page.md"
done

# The page of the modules and packages, with a link to each.
{
    cat docs/REFERENCE.md
    printf '\n## Erlang modules\n\n'
    for file in erlang/src/*.erl; do
        module=$(basename "$file" .erl)
        printf -- '- [%s](../erlang-doc/%s.html)\n' "$module" "$module"
    done
    printf '\n## Go packages\n\n'
    for page in "$source"/go/*.md; do
        printf -- '- [%s](../go/%s)\n' "$(basename "$page" .md)" "$(basename "$page")"
    done
} >"$source/docs/REFERENCE.md"

mkdocs build --quiet --strict --config-file mkdocs.yml
QUIC_DIST_SITE=$PWD/_build/site go test -count=1 -run TestTheSite ./test/docs
echo "_build/site/index.html"
