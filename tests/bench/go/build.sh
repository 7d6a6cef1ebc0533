#!/usr/bin/env bash
# Builds the load and the Go peer from Debian's packages alone: build.sh FOLDER PYTHON
set -euo pipefail
sources=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1/src/till" "$1/bin"
folder=$(cd "$1" && pwd)
wrappers=Mgoogle/protobuf/wrappers.proto=github.com/golang/protobuf/ptypes/wrappers
"$2" -m grpc_tools.protoc --proto_path="$sources" --plugin=protoc-gen-go=/usr/bin/protoc-gen-go \
    --go_out=plugins=grpc,paths=source_relative,$wrappers:"$folder/src/till" till.proto
ln -sfn "$sources" "$folder/src/bench"
export GO111MODULE=off GOFLAGS= GOPATH="$folder:/usr/share/gocode"
for program in load peer; do
    go build -tags libsqlite3 -o "$folder/bin/$program" "bench/$program"
done
