from typing import final

from typing_extensions import Buffer

@final
class Context:
    def __new__(
        cls,
        algorithm: int,
        size_min: int,
        size_avg: int,
        size_max: int,
        phase: int,
        table: bytes,
        aes_key: bytes,
        kernel: str | None,
        /,
    ) -> Context: ...
    @property
    def kernel(self) -> str: ...
    def cuts(self, source: Buffer, /) -> list[int]: ...

@final
class Stream:
    def __new__(cls, context: Context, /) -> Stream: ...
    def feed(self, source: Buffer, /) -> list[int]: ...
    def end(self) -> list[int]: ...
    def copy(self) -> Stream: ...

def kernels() -> list[str]: ...
def encrypt_batch(kernel: str, aes_key: bytes, blocks: bytes, /) -> list[int]: ...
