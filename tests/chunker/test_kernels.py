"""All kernels are one function, and it is AES.

Known answers pin each kernel to FIPS-197 in every slot of its batch; equality on inputs of many
shapes pins them to each other; the reference pins all of them to the definition.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from chunker import KERNEL_VARIABLE, KERNELS, Algorithm, Chunker, Parameters, _cdc

RandomBytes = Callable[[int, int], bytes]
AVAILABLE = _cdc.kernels()
BATCH = 64
PHTE_SMALL = Parameters(Algorithm.PHTE64, 64, 256, 1024)


def cuts_by_kernel(
    monkeypatch: pytest.MonkeyPatch, parameters: Parameters, key: bytes, data: memoryview | bytes
) -> list[list[int]]:
    found = []
    for kernel in AVAILABLE:
        monkeypatch.setenv(KERNEL_VARIABLE, kernel)
        found.append(Chunker(parameters, key).cuts(data))
    return found


def all_equal(results: list[list[int]]) -> bool:
    return all(result == results[0] for result in results)


@pytest.mark.parametrize("kernel", AVAILABLE)
@pytest.mark.parametrize(
    ("aes_key", "plain", "encrypted"),
    [
        # FIPS-197, appendices B and C.1.
        (
            "2b7e151628aed2a6abf7158809cf4f3c",
            "3243f6a8885a308d313198a2e0370734",
            "3925841d02dc09fbdc118597196a0b32",
        ),
        (
            "000102030405060708090a0b0c0d0e0f",
            "00112233445566778899aabbccddeeff",
            "69c4e0d86a7b0430d8cdb78070b4c55a",
        ),
    ],
)
def test_a_kernel_gives_the_known_answers_of_fips_197_in_every_slot(
    kernel: str, aes_key: str, plain: str, encrypted: str
) -> None:
    answers = _cdc.encrypt_batch(kernel, bytes.fromhex(aes_key), bytes.fromhex(plain) * BATCH)
    assert answers == [int.from_bytes(bytes.fromhex(encrypted)[:8], "little")] * BATCH


@pytest.mark.parametrize("kernel", AVAILABLE)
@pytest.mark.parametrize("seed", range(4))
def test_a_kernel_encrypts_a_batch_of_different_blocks_as_a_library_does(
    kernel: str, seed: int, random_bytes: RandomBytes
) -> None:
    aes_key, blocks = random_bytes(seed, 16), random_bytes(seed + 100, 16 * BATCH)
    encrypted = Cipher(algorithms.AES128(aes_key), modes.ECB()).encryptor().update(blocks)
    expected = [int.from_bytes(encrypted[16 * i : 16 * i + 8], "little") for i in range(BATCH)]
    assert _cdc.encrypt_batch(kernel, aes_key, blocks) == expected


@pytest.mark.parametrize("seed", range(3))
def test_kernels_cut_random_bytes_alike(
    seed: int, key: bytes, random_bytes: RandomBytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = random_bytes(seed, 1024 * 1024)
    for sizes in ((64, 256, 1024), (2048, 4096, 16384), (32768, 65536, 262144)):
        assert all_equal(cuts_by_kernel(monkeypatch, Parameters(Algorithm.PHTE64, *sizes), key, data))


def test_kernels_cut_text_alike(key: bytes, text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all_equal(cuts_by_kernel(monkeypatch, PHTE_SMALL, key, text[: 512 * 1024]))


@pytest.mark.parametrize("period", range(1, 131))
def test_kernels_cut_repeated_patterns_alike(
    period: int, key: bytes, random_bytes: RandomBytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (random_bytes(period, period) * (8192 // period + 1))[:8192]
    assert all_equal(cuts_by_kernel(monkeypatch, PHTE_SMALL, key, data))


@pytest.mark.parametrize("byte", [0x00, 0x01, 0x7F, 0x80, 0xFF])
def test_kernels_cut_a_run_of_one_byte_alike(byte: int, key: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all_equal(cuts_by_kernel(monkeypatch, PHTE_SMALL, key, bytes([byte]) * 20000))


def test_kernels_cut_alike_at_every_alignment_of_the_buffer(
    key: bytes, random_bytes: RandomBytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = random_bytes(7, 6000)
    expected = Chunker(PHTE_SMALL, key).cuts(data)
    for shift in range(130):
        shifted = memoryview(bytes(shift) + data)[shift:]
        for cuts in cuts_by_kernel(monkeypatch, PHTE_SMALL, key, shifted):
            assert cuts == expected


def test_kernels_cut_alike_whatever_length_the_last_group_has(
    key: bytes, random_bytes: RandomBytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = random_bytes(8, 64 + 3 * BATCH)
    parameters = Parameters(Algorithm.PHTE64, 64, 256, 1024)
    for size in range(len(data) + 1):
        assert all_equal(cuts_by_kernel(monkeypatch, parameters, key, data[:size]))


def test_the_fastest_kernel_is_taken_unless_told_otherwise(key: bytes) -> None:
    assert Chunker(PHTE_SMALL, key).kernel == AVAILABLE[0]
    assert AVAILABLE[-1] == "portable", "plain C runs everywhere"
    assert set(AVAILABLE) <= set(KERNELS)


def test_an_empty_variable_is_as_good_as_none(key: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KERNEL_VARIABLE, "")
    assert Chunker(PHTE_SMALL, key).kernel == AVAILABLE[0]


def test_a_kernel_that_does_not_exist_is_refused_with_those_that_do(
    key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KERNEL_VARIABLE, "sse9")
    with pytest.raises(ValueError) as caught:
        Chunker(PHTE_SMALL, key)
    assert str(caught.value) == (
        "HOLDFAST_CDC_KERNEL=sse9: no such kernel; there are vaes512, aesni, armv8, portable"
    )


def test_a_kernel_that_this_cpu_cannot_run_is_refused(key: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = next(name for name in KERNELS if name not in AVAILABLE)  # x86 or ARM: never both
    monkeypatch.setenv(KERNEL_VARIABLE, missing)
    with pytest.raises(ValueError, match=f"{KERNEL_VARIABLE}={missing}: this CPU cannot run it"):
        Chunker(PHTE_SMALL, key)
    with pytest.raises(ValueError, match="this CPU cannot run the kernel"):
        _cdc.Context(2, 64, 256, 1024, 0, bytes(2048), bytes(16), missing)
