"""Turns protos/ into generated/: stubs, types, and the descriptor set that Envoy reads.

`python protos/generate.py` writes generated/; `… --image FILE` writes a buf image with the
comments instead.
"""

import importlib.resources
import os
import shutil
import sys
import tempfile
from pathlib import Path

import protovalidate._gen.buf.validate.validate_pb as validate_pb
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

PROTOS = Path(__file__).parent
OUT = PROTOS.parent / "generated"
OURS = sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.rglob("*.proto"))
VALIDATE = "buf/validate/validate.proto"
# Served or unpacked through Envoy, so its descriptor set must hold them too.
THEIRS = [
    "google/longrunning/operations_proto.proto",
    "google/rpc/error_details.proto",
    "google/rpc/status.proto",
]


def main() -> None:
    """Writes everything, from nothing, so that a removed proto leaves no stub behind."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if sys.argv[1:2] == ["--image"]:
        run(
            "--include_imports",
            "--include_source_info",
            f"--descriptor_set_out={sys.argv[2]}",
            *OURS,
        )
        return
    for folder in ("till", "buf"):
        shutil.rmtree(OUT / folder, ignore_errors=True)
    OUT.mkdir(exist_ok=True)
    run(f"--python_out={OUT}", f"--mypy_out=quiet:{OUT}", *OURS, VALIDATE)
    services = [name for name in OURS if "\nservice " in (PROTOS / name).read_text()]
    run(f"--grpc_python_out={OUT}", f"--mypy_grpc_out=quiet:{OUT}", *services)
    run("--include_imports", f"--descriptor_set_out={OUT / 'descriptors.pb'}", *OURS, *THEIRS)


def run(*arguments: str) -> None:
    """Runs protoc with the paths of our protos, Google's packages and protovalidate's rules."""
    with tempfile.NamedTemporaryFile(suffix=".binpb") as rules:
        rules.write(validate_rules())
        rules.flush()
        paths = [PROTOS, importlib.resources.files("grpc_tools") / "_proto", site_packages()]
        code = protoc.main(
            [
                "protoc",
                *(f"-I{path}" for path in paths),
                f"--descriptor_set_in={rules.name}",
                *arguments,
            ]
        )
    if code != 0:
        raise SystemExit(f"protoc failed with {code}")


def validate_rules() -> bytes:
    """Returns protovalidate's rules as a descriptor set; its wheel carries no .proto text."""
    rules = descriptor_pb2.FileDescriptorProto.FromString(validate_pb.desc().proto.to_binary())
    return descriptor_pb2.FileDescriptorSet(file=[rules]).SerializeToString()


def site_packages() -> Path:
    """Returns where googleapis-common-protos keeps google/api and google/rpc."""
    import google.api.annotations_pb2 as annotations

    return Path(annotations.__file__).parents[2]


if __name__ == "__main__":
    main()
