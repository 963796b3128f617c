#!/usr/bin/env bash
# Makes a small base image for model code out of the Python of this machine, without any registry.
#
#   docker/base_image.sh [--force] [TAG]        TAG defaults to airflow-mlops-base:3.11
#   PYTHON=/path/to/python3.12 docker/base_image.sh airflow-mlops-base:3.12
#
# The image holds: the Python and its standard library, pip, sh and a few coreutils, every shared
# library that these need (plus those that wheels expect of a system), the CA bundle, time zones,
# and a user "model" (1000). Where a registry is within reach, python:3.11-slim does as well.
set -euo pipefail

usage() { sed -n '2,9s/^# \{0,1\}//p' "$0"; }
fail() { echo "base_image.sh: $*" >&2; exit 1; }

force=false
tag=""
for argument in "$@"; do
  case "$argument" in
    --force) force=true ;;
    -h | --help) usage; exit 0 ;;
    -*) fail "unknown option $argument; known: --force, --help" ;;
    *) [ -z "$tag" ] || fail "one tag at most, got $tag and $argument"; tag="$argument" ;;
  esac
done
tag="${tag:-airflow-mlops-base:3.11}"
python="${PYTHON:-python3.11}"

[ "$(uname -s)" = Linux ] || fail "needs Linux, this is $(uname -s): take python:3.11-slim from a registry"
command -v docker >/dev/null || fail "no docker command on PATH: install docker.io or docker-ce-cli"
docker version --format '{{.Server.Version}}' >/dev/null 2>&1 \
  || fail "no Docker Engine answers (docker version): start it, or set DOCKER_HOST"
if ! $force && docker image inspect "$tag" >/dev/null 2>&1; then
  echo "$tag is there already (--force builds it again)"
  exit 0
fi
command -v "$python" >/dev/null || fail "no $python on PATH: set PYTHON to a Python 3.11 or later"

# Facts of the interpreter itself, also when $python is a pyenv shim or belongs to a virtual environment.
base="$("$python" -c 'import sys; print(getattr(sys, "_base_executable", None) or sys.executable)')" \
  || fail "$python cannot run (see above): set PYTHON to another one"
facts="$("$base" -I -c '
import os, site, sys, sysconfig
print("version=%d.%d" % sys.version_info[:2])
print("binary=" + os.path.realpath(sys.executable))
print("stdlib=" + sysconfig.get_path("stdlib"))
print("dynload=" + (sysconfig.get_config_var("DESTSHARED") or ""))
packages = site.getsitepackages()[0]
print("packages=/usr" + packages[len(sys.base_prefix):])
')" || fail "$base cannot run (see above)"
value() { sed -n "s/^$1=//p" <<<"$facts"; }
version="$(value version)"; binary="$(value binary)"; stdlib="$(value stdlib)"; packages="$(value packages)"

root="$(mktemp -d)"
trap 'rm -rf "$root" "$root.tar"' EXIT
chmod 755 "$root"

# The layout of /bin, /lib, ... follows the host, so that a library is found where its host path says.
mkdir -p "$root"/usr/{bin,sbin,lib,local/bin} "$root"/{etc/ssl/certs,opt,proc,sys,dev,root,run,var/tmp,home/model}
mkdir -m 1777 "$root/tmp"; chmod 1777 "$root/var/tmp"
for folder in bin sbin lib lib32 lib64 libx32; do
  if [ -L "/$folder" ]; then
    mkdir -p "$root/usr/$folder"; ln -s "usr/$folder" "$root/$folder"
  elif [ -d "/$folder" ]; then
    mkdir -p "$root/$folder"
  fi
done

# Python and its standard library, at /usr whatever its home on this machine.
cp -L "$binary" "$root/usr/bin/python$version"
ln -s "python$version" "$root/usr/bin/python3"; ln -s python3 "$root/usr/bin/python"
mkdir -p "$root/usr/lib/python$version"
tar -C "$stdlib" --exclude='./test' --exclude='./idlelib' --exclude='./tkinter' --exclude='./turtledemo' \
  --exclude='./lib2to3/tests' --exclude='./config-*' --exclude='./site-packages' --exclude='./dist-packages' \
  --exclude='./EXTERNALLY-MANAGED' --exclude='*.opt-?.pyc' --exclude='*.a' -chf - . \
  | tar -C "$root/usr/lib/python$version" -xf -

# pip: the wheel that ensurepip carries, else the pip that is installed, else a fresh one.
mkdir -p "$root$packages"
wheel="$(find "$stdlib/ensurepip/_bundled" /usr/share/python-wheels -name 'pip-*.whl' 2>/dev/null | head -n 1 || true)"
installed="$("$base" -c 'import os, pip; print(os.path.dirname(pip.__file__))' 2>/dev/null || true)"
if [ -n "$wheel" ]; then
  "$base" -m zipfile -e "$wheel" "$root$packages"
elif [ -n "$installed" ]; then
  cp -a "$installed" "${installed}"-*.dist-info "$root$packages/"
elif command -v uv >/dev/null; then
  uv pip install --quiet --python "$base" --target "$root$packages" pip
else
  fail "no pip for $base: install python3-pip or uv"
fi
for name in pip pip3; do
  printf '#!/usr/bin/python%s\nimport sys\nfrom pip._internal.cli.main import main\nsys.exit(main())\n' "$version" \
    >"$root/usr/bin/$name"
  chmod 755 "$root/usr/bin/$name"
done

# A shell and what shell scripts of model code use.
shell="$(readlink -f "$(command -v sh)")"
cp -L "$shell" "$root/usr/bin/sh"
for tool in basename cat chmod chown cp cut date dd dirname du echo env expr false find getconf grep gzip head \
  hostname id kill ln ls mkdir mktemp mv nproc od ps pwd readlink rm rmdir sed seq sha256sum sleep sort stat sync \
  tail tar tee test timeout touch tr true uname uniq wc xargs yes; do
  path="$(type -P "$tool" || true)"
  [ -z "$path" ] || cp -L "$path" "$root/usr/bin/$tool"
done

# Shared libraries: what ldd lists, and what wheels of numpy, pyarrow, LightGBM, ... take from a system.
libraries() {
  { find "$root/usr/bin" -type f; find "$root/usr/lib/python$version" -name '*.so'; find "$(value dynload)" -name '*.so'; } \
    2>/dev/null | xargs -r -n 50 ldd 2>/dev/null | grep -oE '/[^ ]+ \(0x' | cut -d ' ' -f 1 || true
  local cache; cache="$(PATH="$PATH:/usr/sbin:/sbin" ldconfig -p 2>/dev/null || true)"
  for name in libc.so.6 libm.so.6 libdl.so.2 librt.so.1 libpthread.so.0 libutil.so.1 libanl.so.1 libresolv.so.2 \
    libnss_files.so.2 libnss_dns.so.2 libgcc_s.so.1 libstdc++.so.6 libgomp.so.1; do
    awk -v name="$name" '$1 == name && /x86-64|AArch64/ { print $NF; exit }' <<<"$cache"
  done
}
libraries | sort -u | while read -r library; do
  case "$library" in
    "$root"*) ;;
    /lib* | /usr/lib*) [ -e "$root$library" ] || cp -L --parents "$library" "$root" ;;
    *) [ -e "$root/usr/lib/${library##*/}" ] || cp -L "$library" "$root/usr/lib/" ;;
  esac
done

# Names, certificates, time zones.
printf 'root:x:0:0:root:/root:/bin/sh\nmodel:x:1000:1000:model code:/home/model:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n' >"$root/etc/passwd"
printf 'root:x:0:\nmodel:x:1000:\nnogroup:x:65534:\n' >"$root/etc/group"
printf 'passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n' >"$root/etc/nsswitch.conf"
for bundle in "${SSL_CERT_FILE:-}" /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
  if [ -n "$bundle" ] && [ -s "$bundle" ]; then
    cp -L "$bundle" "$root/etc/ssl/certs/ca-certificates.crt"; break
  fi
done
[ -s "$root/etc/ssl/certs/ca-certificates.crt" ] || fail "no CA bundle on this machine: install ca-certificates"
if [ -d /usr/share/zoneinfo ]; then
  mkdir -p "$root/usr/share/zoneinfo"
  tar -C /usr/share/zoneinfo --exclude=./right --exclude=./posix -cf - . | tar -C "$root/usr/share/zoneinfo" -xf -
fi
if [ -d /usr/lib/locale/C.utf8 ]; then
  mkdir -p "$root/usr/lib/locale"; cp -RL /usr/lib/locale/C.utf8 "$root/usr/lib/locale/"
fi
PATH="$PATH:/usr/sbin:/sbin" ldconfig -r "$root" 2>/dev/null || true

# Everything belongs to root but the home of the model code.
{
  tar -C "$root" --exclude='./home/model' --owner=0 --group=0 --numeric-owner -cf "$root.tar" .
  tar -C "$root" --owner=1000 --group=1000 --numeric-owner -rf "$root.tar" ./home/model
}
# Under another name until it has run: nobody takes a broken image for one that "is there already".
trial="airflow-mlops-base-trial:$$"
docker import \
  -c 'ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin' \
  -c 'ENV LANG=C.UTF-8 PYTHONUNBUFFERED=1' \
  -c 'ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt' \
  -c 'ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore' \
  -c "LABEL ai.airflow-mlops.base=python$version" \
  -c 'CMD ["python"]' \
  "$root.tar" "$trial" >/dev/null
docker run --rm --network none --user 1000:1000 "$trial" python -c 'import ctypes, hashlib, lzma, sqlite3, ssl, zlib, pip' \
  || { docker rmi "$trial" >/dev/null; fail "the Python of the image does not run (see above): set PYTHON to another one"; }
docker tag "$trial" "$tag"
docker rmi "$trial" >/dev/null
echo "$tag: Python $version, $(docker image inspect --format '{{.Size}}' "$tag" | awk '{ printf "%.0f MB", $1 / 1e6 }')"
