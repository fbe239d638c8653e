"""How files are damaged: each kind takes the files of a seed and changes one of them."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from random import Random

Files = dict[str, bytes]

CARD, BLOCK = 80, 2880
VALUES = (
    *("0 1 -1 2 3 7 8 -8 16 64 -64 255 4095 65536 2147483647 2147483648 -2147483649".split()),
    *("4294967296 9223372036854775807 9223372036854775808 -9223372036854775808".split()),
    *("99999999999999999999 1000000000 1.5 -0.0 1E400 -1E-400 1D3 NaN -INF (1,2) T F".split()),
    *("' ' '' 'x' 'IMAGE' 'MASK' 'BINTABLE' 'RA---TPV' 'DEC--TAN' 'PIXEL' 'deg' '1PB(9)'".split()),
    *("'1QJ' '3E' '99999999999D' '1PE' '(9,9)' '(0)' '(-1,3)' '/etc/passwd' '../../x'".split()),
    *("'GZIP_1' 'GZIP_2' 'RICE_1' 'PLIO_1' 'HCOMPRESS_1' 'NOCOMPRESS' 'BYTEPIX' {} [0]".split()),
    *("'SUBTRACTIVE_DITHER_2' 'GaussianPsf' 'CellPsf' 'PsfexPsf' 'PSF1' 'SCI' 'unclosed".split()),
    "'it''s'",
    "",
    "\x00\xff\x80",
    "'" + "long" * 20,
)
KEYWORDS = (
    "NAXIS NAXIS1 NAXIS2 NAXIS3 BITPIX PCOUNT GCOUNT GROUPS TFIELDS THEAP TFORM1 TFORM2 TTYPE1 "
    "TDIM1 TNULL1 TSCAL1 TZERO1 ZIMAGE ZNAXIS ZNAXIS1 ZNAXIS2 ZBITPIX ZTILE1 ZTILE2 ZCMPTYPE "
    "ZQUANTIZ ZDITHER0 ZBLANK ZSCALE ZZERO ZNAME1 ZVAL1 ZNAME2 ZVAL2 BSCALE BZERO BLANK EXTNAME "
    "EXTVER EXTTYPE INHERIT XTENSION SIMPLE EXTEND BUNIT LTV1 LTV2 CRPIX1 CRPIX1A CRVAL1 CRVAL1A "
    "CRVAL2A CTYPE1 CTYPE2 CD1_1 CDELT1 CUNIT1 PV1_1 WCSAXES A_ORDER MP_BAD MSKN0000 MSKM0000 "
    "PSFMODEL PSF_ID AR_HDU CCDNUM PLVER INSTRUME POLNAXIS POLDEG1 POLNGRP PSFAXIS1 PSFAXIS3 "
    "PSF_SAMP DATAMODL BSOFTEN BOFFSET EPOCH EQUINOX RADESYS LONPOLE DATE-OBS MJD-OBS"
).split()
JSON = (None, True, 0, -1, 1.5, 2**31, 2**63, 10**30, -(2**40), 1e308, float("nan"), "", "x", "NaN")
JSON += (
    "float32",
    "int99",
    "../..",
    "/etc",
    [],
    [0, 0],
    [-1, 4],
    [2**40, 2**40],
    [3],
    {},
    {"a": 1},
)


def cards(data: bytes) -> list[int]:
    """Return where there are cards with a value."""
    return [
        i
        for i in range(0, len(data) - CARD + 1, CARD)
        if data[i + 8 : i + 10] == b"= " and data[i : i + 8].isascii()
    ]


def with_card(data: bytes, at: int, keyword: str, value: str) -> bytes:
    text = f"{keyword:<8}= {value:>20}".encode("latin-1")[:CARD].ljust(CARD)
    return data[:at] + text + data[at + CARD :]


def card_value(data: bytes, random: Random) -> bytes:
    """Give other values to some cards, most often to one that says where things are."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        places = cards(data)
        at = random.choice(places)
        if random.random() < 0.5:
            keyword = random.choice(KEYWORDS).ljust(8).encode()
            at = random.choice([i for i in places if data[i : i + 8] == keyword] or places)
        keyword = data[at : at + 8].decode("ascii").rstrip()
        data = with_card(data, at, keyword, random.choice(VALUES))
    return data


def card_put(data: bytes, random: Random) -> bytes:
    """Put a card that says something in the place of another one."""
    return with_card(
        data, random.choice(cards(data)), random.choice(KEYWORDS), random.choice(VALUES)
    )


def card_twice(data: bytes, random: Random) -> bytes:
    """Let a header have a card of another."""
    from_, to = random.choice(cards(data)), random.choice(cards(data))
    return data[:to] + data[from_ : from_ + CARD] + data[to + CARD :]


def card_gone(data: bytes, random: Random) -> bytes:
    """Take a card out; what is behind it in the block moves up."""
    at = random.choice(cards(data))
    end = at // BLOCK * BLOCK + BLOCK
    return data[:at] + data[at + CARD : end] + b" " * CARD + data[end:]


def card_junk(data: bytes, random: Random) -> bytes:
    at = random.choice(cards(data))
    return data[:at] + random.randbytes(CARD) + data[at + CARD :]


def end_gone(data: bytes, random: Random) -> bytes:
    """Blank the end of a header."""
    ends = [i for i in range(0, len(data), CARD) if data[i : i + CARD] == b"END".ljust(CARD)]
    at = random.choice(ends)
    return data[:at] + b" " * CARD + data[at + CARD :]


def flipped(data: bytes, random: Random) -> bytes:
    """Change some bytes anywhere."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 4, 30)) if data else 0):
        changed[random.randrange(len(data))] = random.randrange(256)
    return bytes(changed)


def flipped_late(data: bytes, random: Random) -> bytes:
    """Change some bytes in a row, most likely in data."""
    at = random.randrange(len(data) // 3, len(data)) if data else 0
    piece = random.choice((b"\0", b"\xff", b"\x7f", b"\x80", random.randbytes(1))) * 8
    return data[:at] + piece[: random.choice((1, 2, 4, 8))] + data[at + 8 :]


def truncated(data: bytes, random: Random) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def block_gone(data: bytes, random: Random) -> bytes:
    at = random.randrange(0, len(data) + 1, BLOCK)
    return data[:at] + data[at + BLOCK * random.choice((1, 2, 5)) :]


def block_twice(data: bytes, random: Random) -> bytes:
    at, to = (random.randrange(0, len(data) + 1, BLOCK) for _ in range(2))
    return data[:to] + data[at : at + BLOCK] + data[to:]


def junk_behind(data: bytes, random: Random) -> bytes:
    return data + random.choice((b"\0", b" ", b"XTENSION=", b"A", random.randbytes(80))) * 99


def json_value(data: bytes, random: Random) -> bytes:
    """Give another value to something in a JSON text, or take it away."""
    tree = json.loads(data)
    place, key = random.choice(list(_places(tree)))
    what = random.random()
    if what < 0.15:
        del place[key]
    elif what < 0.25 and isinstance(place, dict):
        place[random.choice(("x", "shape", "0", "mask_planes"))] = place.pop(key)
    else:
        place[key] = random.choice(JSON)
    return json.dumps(tree).encode()


def _places(tree):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


def flipped_at_the_end(data: bytes, random: Random) -> bytes:
    """Change bytes of what a Parquet file says of itself."""
    start = max(0, len(data) - random.choice((8, 200, 2000)))
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8)) if data else 0):
        changed[random.randrange(start, len(data))] = random.randrange(256)
    return bytes(changed)


def word(data: bytes, random: Random) -> bytes:
    """Put another word in the place of one in a text."""
    words = [*re.finditer(rb"[\w.+-]+", data)]
    place = random.choice(words)
    other = random.choice((*WORDS, random.choice(words)[0].decode(), random.choice(VALUES)))
    return data[: place.start()] + other.encode("latin-1") + data[place.end() :]


def line(data: bytes, random: Random) -> bytes:
    """Take a line out, or put it in once more, or without what it starts with."""
    lines = data.split(b"\n")
    at, to = random.randrange(len(lines)), random.randrange(len(lines) + 1)
    here = lines[at]
    return b"\n".join(
        random.choice(
            (
                lines[:at] + lines[at + 1 :],
                lines[:to] + [here] + lines[to:],
                [*lines[:at], here[random.randrange(len(here) + 1) :], *lines[at + 1 :]],
            )
        )
    )


WORDS = "null ~ nan .inf -1 0 1e400 [] {} {a:1} [1,2] true 2026-01-01 !!python/object:os.system &a"
WORDS = (
    *WORDS.split(),
    "*a",
    "<<",
    "'",
    '"',
    "\t",
    "\u0000",
    "a: b: c",
    "9" * 400,
    "float99",
    "\n",
)

BYTES: dict[str, Callable[[bytes, Random], bytes]] = {
    "bytes flipped": flipped,
    "bytes of data": flipped_late,
    "truncated": truncated,
}
FOOTER: dict[str, Callable[[bytes, Random], bytes]] = {"bytes of footer": flipped_at_the_end}
TEXT: dict[str, Callable[[bytes, Random], bytes]] = {"word of text": word, "line of text": line}
EVERY = TEXT | FOOTER | BYTES
FITS: dict[str, Callable[[bytes, Random], bytes]] = {
    "value of cards": card_value,
    "card put": card_put,
    "card twice": card_twice,
    "card gone": card_gone,
    "card of junk": card_junk,
    "END gone": end_gone,
    "block gone": block_gone,
    "block twice": block_twice,
    "junk behind": junk_behind,
    **BYTES,
}
HEADERS = ("value of cards",) * 8 + ("card put",) * 2  # as there is most to go wrong with them


def mutated(files: Files, random: Random) -> tuple[str, Files]:
    """Return the kind of damage, and the files with one of them damaged."""
    described = [name for name in files if name.endswith("zarr.json")]
    name = random.choice(described if random.random() < 0.5 and described else sorted(files))
    if name.endswith("zarr.json"):
        kind = random.choice(("value in JSON",) * 6 + ("file gone", "file empty", *BYTES))
    elif ".zarr/" in name:
        kind = random.choice(("chunk gone", "chunk renamed", "chunk of another", *BYTES))
    elif name.endswith(".parquet"):
        kind = random.choice((*FOOTER, *FOOTER, *BYTES))
    elif name.endswith((".ecsv", ".yaml", ".toml")):
        kind = random.choice((*TEXT, *TEXT, *BYTES))
    else:
        kind = random.choice((*FITS, *HEADERS))
    return kind, _damaged(files, name, kind, random)


def _damaged(files: Files, name: str, kind: str, random: Random) -> Files:
    data = files[name]
    if kind in ("file gone", "chunk gone"):
        return {other: data for other, data in files.items() if other != name}
    if kind == "chunk renamed":
        rest = {other: data for other, data in files.items() if other != name}
        return rest | {name + random.choice(("0", "x", ".old")): data}
    if kind == "chunk of another":
        return files | {name: files[random.choice(sorted(files))]}
    if kind == "file empty":
        return files | {name: b""}
    if kind == "value in JSON":
        return files | {name: json_value(data, random)}
    if name.endswith(".gz") and random.random() < 0.8:
        return files | {name: gzip.compress(FITS[kind](gzip.decompress(data), random), 1, mtime=0)}
    if name.endswith(".gz"):
        return files | {name: random.choice([*BYTES.values()])(data, random)}
    return files | {name: {**FITS, **EVERY}[kind](data, random)}


LOST = ("chunk gone", "chunk renamed")
"""Kinds after which what is read cannot be right."""
