#!/bin/sh
# usage: sh tools/install.sh ENVIRONMENT REQUIREMENTS...
# Makes a virtual environment if there is none, and installs files of pinned packages into it: with uv where it is on the
# PATH or pip can install it, otherwise with pip.
set -eu
umask 022
environment=$1
shift
python=$environment/bin/python

if ! "$python" -c '' 2>/dev/null; then
	found=
	for name in python3.11 python3.12 python3.13 python3 python3.14; do
		if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
			found=$name
			break
		fi
	done
	if [ -z "$found" ]; then
		echo 'AEGIS needs Python 3.11 or newer as python3.11, python3.12, python3.13 or python3 on the PATH' \
			'(파이썬 3.11 이상이 필요합니다).' >&2
		exit 1
	fi
	echo "Making $environment with $("$found" --version) ..."
	"$found" -m venv --clear "$environment" || {
		echo "$found cannot make a virtual environment: install its venv module" \
			'(Debian, Ubuntu: apt install python3-venv).' >&2
		exit 1
	}
fi

echo 'Installing packages (up to a minute, the first time only) ...'
began=$(date +%s)
uv=$(command -v uv || echo "$environment/bin/uv")
if ! [ -x "$uv" ]; then
	"$python" -m pip install --quiet --disable-pip-version-check --requirement requirements-installer.txt 2>/dev/null || true
fi
files=
for file in "$@"; do files="$files --requirement $file"; done
# shellcheck disable=SC2086  # one word for each file
if [ -x "$uv" ] && "$uv" pip install --quiet --python "$python" $files; then
	:
elif "$python" -m pip install --quiet --disable-pip-version-check $files; then
	:
else
	echo 'The packages cannot be installed: see the lines above. The same command continues where this one ended.' >&2
	exit 1
fi
echo "Installed in $(($(date +%s) - began)) s."
