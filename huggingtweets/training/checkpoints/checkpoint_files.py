"""The files of a checkpoint: safetensors and JSON with checksums, and the sealed manifest."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from huggingtweets.errors import CheckpointError
from huggingtweets.storage.files import read_plain, write_bytes

FORMAT = 1
MANIFEST = "manifest.json"
CHUNK_BYTES = 16 << 20

Values = Mapping[str, Any]
Files = dict[str, dict[str, Any]]
"""Size and checksum by name."""


class DamagedError(CheckpointError):
    """A checkpoint is not what was written; the message names file and fault."""


def step_name(step: int) -> str:
    """Name the folder of a checkpoint."""
    return f"step-{step:08d}"


def file_name(name: str, part: int, num_parts: int) -> str:
    """Name a file of one part as model folders do: `model-00001-of-00004.safetensors`."""
    if num_parts == 1:
        return name
    stem, suffix = name.split(".")
    return f"{stem}-{part + 1:05d}-of-{num_parts:05d}.{suffix}"


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write a safetensors file of fp32 chunk by chunk and return its size and checksum.

    Not `safetensors.torch.save_file`: that needs a second pass for the checksum, does not flush,
    and reports a full disk without an error number.
    """
    header: dict[str, Any] = {}
    offset = 0
    for name, tensor in tensors.items():
        assert tensor.dtype is torch.float32, f"{name}: {tensor.dtype}"  # as both engines keep it
        end = offset + 4 * tensor.numel()
        shape = list(tensor.shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    encoded = json.dumps(header).encode("ascii")
    encoded += b" " * (-len(encoded) % 8)  # the format wants the numbers behind it aligned
    with path.open("wb", buffering=0) as file:
        digest = hashlib.sha256()
        _write_all(file, digest, len(encoded).to_bytes(8, "little") + encoded)
        for tensor in tensors.values():
            flat = tensor.detach().to("cpu").contiguous().reshape(-1)  # sync: a save
            _write_all(file, digest, flat.view(torch.uint8).numpy().data)
        os.fsync(file.fileno())
        return {"bytes": file.tell(), "sha256": digest.hexdigest()}


def _write_all(file: BinaryIO, digest: Any, data: bytes | memoryview) -> None:
    view = memoryview(data)
    for start in range(0, len(view), CHUNK_BYTES):
        chunk = view[start : start + CHUNK_BYTES]
        digest.update(chunk)
        while len(chunk):
            chunk = chunk[file.write(chunk) :]


def write_json(path: Path, value: Any) -> dict[str, Any]:
    """Write a JSON file and return its size and checksum."""
    data = json.dumps(value).encode("ascii")
    write_bytes(path, data)
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def sealed(manifest: Values) -> bytes:
    """Encode a manifest together with its own checksum."""
    checksum = hashlib.sha256(json.dumps(manifest).encode("ascii")).hexdigest()
    return json.dumps({**manifest, "sha256": checksum}, indent=1).encode("ascii")


def read_manifest(folder: Path) -> Any:
    """Read the manifest of a checkpoint.

    Raises:
        DamagedError: not a byte of it may differ from what was written.
        CheckpointError: another version of huggingtweets wrote it.
    """
    try:
        data = read_plain(folder / MANIFEST)
        manifest = json.loads(data)
        manifest.pop("sha256")
        step = manifest["step"]
    except PermissionError:
        raise
    except (OSError, ValueError, AttributeError, TypeError, KeyError, RecursionError) as err:
        raise DamagedError(f"{MANIFEST} cannot be read ({type(err).__name__})") from err
    if sealed(manifest) != data or step_name(step) != folder.name:
        raise DamagedError(f"{MANIFEST} is not as it was written")
    if manifest["format"] != FORMAT:
        raise CheckpointError(
            f"{folder}: got a checkpoint of format {manifest['format']}; expected {FORMAT}; go on "
            "with the version of huggingtweets that wrote it"
        )
    return manifest


def check_files(folder: Path, files: Files) -> None:
    """Compare every byte with what was written.

    Raises:
        DamagedError: a file is missing or differs.
    """
    for name, entry in files.items():
        try:
            if not (folder / name).is_file():
                raise DamagedError(f"{name} is gone, or no plain file")
            with (folder / name).open("rb") as file:
                if os.fstat(file.fileno()).st_size != entry["bytes"]:
                    raise DamagedError(f"{name} has another length than was written")
                if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                    raise DamagedError(f"{name} has another checksum than was written")
        except PermissionError:
            raise
        except OSError as err:
            raise DamagedError(f"{name} cannot be read ({err.strerror})") from err
