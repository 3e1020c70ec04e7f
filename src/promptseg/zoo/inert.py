"""What a checkpoint's words may become: plain values, descriptions of tensors, or placeholders. Nothing here calls what a file names."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from ..errors import UnsafeFile, WeightsError

MAX_DIMENSIONS: Final = 16
LARGEST: Final = 2**48  # count of values or bytes

# Names (with all below them) that have no business in a checkpoint: they start programs, touch files, talk to networks or run code.
DANGEROUS: Final = {
    "_aix_support", "_io", "_osx_support", "_pickle", "_posixsubprocess", "_pyrepl", "antigravity", "asyncio", "bdb", "cProfile",
    "cloudpickle", "code", "codeop", "commands", "concurrent", "ctypes", "dill", "distutils", "doctest", "ensurepip", "ftplib", "gc",
    "getpass", "http", "idlelib", "imaplib", "imp", "importlib", "inspect", "io", "joblib", "lib2to3", "linecache", "marshal", "mmap",
    "multiprocessing", "nt", "ntpath", "numpy.f2py", "numpy.load", "operator", "os", "pdb", "pickle", "pickletools", "pip", "pkgutil",
    "poplib", "posix", "profile", "pty", "pydoc", "runpy", "setuptools", "shelve", "shutil", "signal", "site", "smtplib", "socket",
    "socketserver", "sqlite3", "ssl", "subprocess", "sys", "sysconfig", "telnetlib", "tempfile", "threading", "timeit",
    "torch.distributed.rpc", "torch.hub", "torch.jit.load", "torch.load", "torch.package", "torch.serialization",
    "torch.utils.cpp_extension", "trace", "types.CodeType", "types.FunctionType", "urllib", "venv", "webbrowser", "wsgiref", "xmlrpc",
    "zipapp", "zipimport",
}  # fmt: skip
BUILTINS: Final = {"builtins", "__builtin__", "__builtins__"}
HARMLESS_BUILTINS: Final = {
    "bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "long", "object", "range", "set", "slice",
    "str", "tuple", "unicode", "xrange",
}  # fmt: skip
STORAGE_DTYPES: Final = {  # torch.NAMEStorage -> torch.NAME
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64", "Int": "int32", "Short": "int16",
    "Char": "int8", "Byte": "uint8", "Bool": "bool",
}  # fmt: skip
UNTYPED: Final = {"torch.storage.UntypedStorage", "torch.UntypedStorage", "torch.storage._UntypedStorage"}


@dataclass(frozen=True, slots=True)
class Name:
    """A class or function that the file mentions, as words."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False, repr=False)
class Placeholder:
    """What an object of any other class becomes: its class's name and, never applied, its state."""

    of: str
    state: Any = None

    def __str__(self) -> str:
        return f"({self.of})"


@dataclass(frozen=True, slots=True)
class StorageKey:
    """Which stored memory: ``key`` names it in the file; ``dtype`` None for untyped bytes; ``numel`` counts elements (bytes if untyped)."""

    key: str
    dtype: str | None
    numel: int
    start: int = 0  # elements; legacy files store views of larger memories


@dataclass(frozen=True, slots=True, eq=False)
class TensorView:
    """A tensor that has not been read yet: a strided view of a storage, in elements of ``dtype``."""

    storage: StorageKey
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str


def checked(name: Name) -> Name:
    """The name itself, if a checkpoint may mention it.

    Raises:
        UnsafeFile: it names, or reaches for, something that acts on the machine.
    """
    words = str(name).split(".")
    paths = {".".join(words[: count + 1]) for count in range(len(words))}
    builtin = words[0] in BUILTINS and name.name not in HARMLESS_BUILTINS
    hidden = any(word.startswith("__") and word.endswith("__") for word in words[1:])  # os.__class__, but not __main__.Config
    if builtin or hidden or not paths.isdisjoint(DANGEROUS):
        text = str(name)[:100]
        raise UnsafeFile(
            f"The file asks for {text!r}, which no checkpoint needs. It was not loaded, and nothing of it was run. Do not trust it."
        )
    return name


def key(value: Any) -> Any:
    """A dictionary key. Only plain scalars are hashed: nested keys can take for ever, and of large numbers a million can hash alike."""
    plain = isinstance(value, (str, float, bytes, type(None), Name, Placeholder)) or (isinstance(value, int) and abs(value) < 2**32)
    return value if plain else Placeholder("dictionary key", value)


def describe(target: Any, arguments: Any) -> Any:
    """What a call in the file stands for: an ordered dictionary, a tensor, or nothing that we build."""
    if not isinstance(target, Name) or not isinstance(arguments, tuple):
        return Placeholder("result of a call", (target, arguments))
    if target == Name("collections", "OrderedDict"):
        return OrderedDict((key(k), value) for k, value in (arguments[0] if arguments else ()))
    if target == Name("torch", "Size"):
        return tuple(arguments[0]) if arguments else ()
    if target.module == "torch._utils" and target.name in _BUILDERS:
        return _BUILDERS[target.name](*arguments)
    return Placeholder(str(target), arguments)


def storage_key(identity: Any) -> StorageKey:
    """torch's persistent id: ("storage", type, key, device, count), in legacy files followed by a view (key, start, count) or None."""
    tag, kind, label, _, numel, *view = identity
    if tag != "storage" or not isinstance(kind, Name) or not isinstance(label, (str, int)):
        raise WeightsError("The checkpoint refers to something other than tensor storage. Get it again.")
    dtype = STORAGE_DTYPES.get(kind.name.removesuffix("Storage")) if kind.module in ("torch", "torch.cuda") else None
    if dtype is None and str(kind) not in UNTYPED:
        raise WeightsError(f"The checkpoint holds a {kind}, a kind of tensor that is not supported.")
    start, numel = (view[0][1], view[0][2]) if view and view[0] is not None else (0, numel)
    return StorageKey(str(label), dtype, _natural(numel), _natural(start))


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any, dtype: str | None = None) -> TensorView:
    """`torch._utils._rebuild_tensor` and `_v2`. A view that leaves its storage, or repeats it to look larger, is refused."""
    dtype = dtype or (storage.dtype if isinstance(storage, StorageKey) else None)
    if not isinstance(storage, StorageKey) or dtype is None:
        raise WeightsError("The checkpoint holds a tensor without readable storage. Get it again.")
    sizes, strides = tuple(map(_natural, size)), tuple(map(_natural, stride))
    if len(sizes) != len(strides) or len(sizes) > MAX_DIMENSIONS or math.prod(filter(None, sizes)) >= LARGEST:
        raise WeightsError(f"The checkpoint holds a tensor of shape {sizes[:20]} with steps {strides[:20]}. Get it again.")
    return TensorView(storage, _natural(offset), sizes, strides, dtype)


def _tensor_v3(storage: Any, offset: Any, size: Any, stride: Any, _gradient: Any, _hooks: Any, dtype: Any, *_: Any) -> TensorView:
    """`_rebuild_tensor_v3`: untyped memory, the element type comes along as a name such as torch.float8_e4m3fn."""
    return _tensor(storage, offset, size, stride, dtype=dtype.name if isinstance(dtype, Name) and dtype.module == "torch" else None)


def _typed(function: Any, _type: Any, arguments: Any, *_: Any) -> Any:
    """`_rebuild_from_type_v2`: a tensor with Python attributes, which are left out."""
    if not isinstance(function, Name) or function.module != "torch._utils":
        return Placeholder("a tensor of a class of its own", arguments)
    return describe(function, arguments)


_BUILDERS: Final[dict[str, Callable[..., Any]]] = {
    "_rebuild_tensor": _tensor,
    "_rebuild_tensor_v2": _tensor,
    "_rebuild_tensor_v3": _tensor_v3,
    "_rebuild_parameter": lambda data, *_: data,
    "_rebuild_parameter_with_state": lambda data, *_: data,
    "_rebuild_from_type_v2": _typed,
}


def _natural(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < LARGEST:
        raise WeightsError("The checkpoint gives an impossible size or position in memory. Get it again.")
    return value
