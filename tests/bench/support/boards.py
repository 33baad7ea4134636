"""C headers on boards: what compilers make of them, and an ATmega328P simulated instruction by
instruction (simavr)."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ids_plugin.compression.tiny.c_header import header
from ids_plugin.compression.tiny.integer_network import Network

Ints = npt.NDArray[np.int64]
FLAGS = (
    "-std=c99",
    "-Os",
    "-Wall",
    "-Werror",
    "-ffunction-sections",
    "-fdata-sections",
    "-Wl,--gc-sections",
)
HOST = """
#include <stdio.h>
#include "ids_model.h"
int main(void)
{
    uint32_t counts[IDS_INPUTS];
    ids_value unit[IDS_INPUTS];
    while (fread(counts, sizeof counts, 1, stdin) == 1) {
        int32_t said;
        ids_prepare(counts, unit);
        said = ids_classify(unit);
        fwrite(&said, sizeof said, 1, stdout);
        fwrite(ids_scores, sizeof ids_scores, 1, stdout);
    }
    return 0;
}
"""
NEEDED = """
#include "ids_model.h"
volatile uint32_t seen[IDS_INPUTS];
volatile int said;
int main(void)
{
    uint32_t counts[IDS_INPUTS];
    ids_value unit[IDS_INPUTS];
    int i;
    for (i = 0; i < IDS_INPUTS; i++)
        counts[i] = seen[i];
    ids_prepare(counts, unit);
    said = ids_classify(unit);
    return 0;
}
"""
NOTHING = """
#include <stdint.h>
volatile uint32_t seen[%d];
volatile int said;
int main(void)
{
    said = (int)seen[0];
    return 0;
}
"""
SIMULATED = """
#include <avr/io.h>
#include <avr/interrupt.h>
#include <avr/sleep.h>
#include "ids_model.h"
extern uint8_t _end;
static const uint32_t rows[][IDS_INPUTS] PROGMEM = {
%s
};
static void put(char c) { while (!(UCSR0A & (1 << UDRE0))) ; UDR0 = (uint8_t)c; }
static void number(int32_t n)
{
    char digits[11];
    uint8_t i = 0;
    uint32_t left = n < 0 ? (uint32_t)-n : (uint32_t)n;
    if (n < 0)
        put('-');
    do { digits[i++] = (char)('0' + left %% 10); left /= 10; } while (left);
    while (i)
        put(digits[--i]);
    put(' ');
}
int main(void)
{
    uint16_t r, i, ticks, most = 0;
    uint8_t *at;
    UCSR0B = 1 << TXEN0;
    TCCR1B = (1 << CS11) | (1 << CS10);
    for (r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        uint32_t counts[IDS_INPUTS];
        ids_value unit[IDS_INPUTS];
        int said;
        for (i = 0; i < IDS_INPUTS; i++)
            counts[i] = pgm_read_dword(&rows[r][i]);
        for (at = &_end; at < (uint8_t *)SP - 8; at++)
            *at = 0xA5;
        TCNT1 = 0;
        ids_prepare(counts, unit);
        said = ids_classify(unit);
        ticks = TCNT1;
        for (at = &_end; *at == 0xA5; at++)
            ;
        if ((uint16_t)(RAMEND - (uint16_t)at) > most)
            most = (uint16_t)(RAMEND - (uint16_t)at);
        put('>');
        number(said);
        for (i = 0; i < IDS_CLASSES; i++)
            number(ids_scores[i]);
        number(ticks);
        number(most);
        put('\\n');
    }
    cli();
    sleep_mode();
    return 0;
}
"""


@dataclass(frozen=True)
class Board:
    """A compiler and its target."""

    name: str
    compiler: str
    options: tuple[str, ...]

    @property
    def there(self) -> bool:
        """Whether the compiler is installed."""
        return shutil.which(self.compiler) is not None


_THUMB = ("-mthumb", "--specs=nosys.specs")
BOARDS = (
    Board("ATmega328P", "avr-gcc", ("-mmcu=atmega328p",)),
    Board("Cortex-M0+", "arm-none-eabi-gcc", ("-mcpu=cortex-m0plus", *_THUMB)),
    Board(
        "Cortex-M4F",
        "arm-none-eabi-gcc",
        ("-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16", *_THUMB),
    ),
)
PACKAGES = "gcc-avr avr-libc simavr gcc-arm-none-eabi libnewlib-arm-none-eabi"


def on_host(network: Network, rows: Ints, folder: Path) -> tuple[Ints, npt.NDArray[np.generic]]:
    """Classes (n) and scores (n, classes) that the header gives, compiled by the host's cc, for
    counts (n, 16)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ids_model.h").write_text(header(network, "bench"))
    (folder / "host.c").write_text(HOST)
    strict = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O2")
    subprocess.run(["cc", *strict, "host.c", "-o", "host"], cwd=folder, check=True)
    told = rows[:, network.features].astype("<u4").tobytes()
    output = subprocess.run([folder / "host"], input=told, capture_output=True, check=True).stdout
    table = np.frombuffer(output, "<i4").reshape(len(rows), -1)
    scores = np.ascontiguousarray(table[:, 1:])
    return table[:, 0].astype(np.int64), scores if network.whole else scores.view("<f4")


def sizes(network: Network, board: Board, folder: Path) -> dict[str, int] | None:
    """`flash` and `ram` (static) in bytes that the header adds to an empty program; None where it
    can't be linked."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ids_model.h").write_text(header(network, "bench"))
    with_it = _size(NEEDED, board, folder)
    without = _size(NOTHING % network.shape.inputs, board, folder)
    if with_it is None or without is None:
        return None
    return {key: with_it[key] - without[key] for key in with_it}


def _size(text: str, board: Board, folder: Path) -> dict[str, int] | None:
    (folder / "board.c").write_text(text)
    build = [board.compiler, *FLAGS, *board.options, "board.c", "-o", "board.elf"]
    if subprocess.run(build, cwd=folder, capture_output=True, check=False).returncode:
        return None
    tool = board.compiler.replace("gcc", "size")
    told = subprocess.run(
        [tool, "board.elf"], cwd=folder, capture_output=True, text=True, check=True
    ).stdout
    text_, data, bss = (int(word) for word in told.splitlines()[1].split()[:3])
    return {"flash": text_ + data, "ram": data + bss}


def simulated(network: Network, rows: Ints, folder: Path) -> dict[str, Any] | None:
    """A whole network on a simulated ATmega328P at 16 MHz: `said` and `scores` for counts (n, 16),
    `ms` of the slowest, `ram` in bytes: static and the deepest stack, the program's own rows left
    in flash. None where it can't be linked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ids_model.h").write_text(header(network, "bench"))
    listed = ",\n".join(
        "{" + ", ".join(f"{v}ul" for v in row) + "}" for row in rows[:, network.features].tolist()
    )
    (folder / "avr.c").write_text(SIMULATED % listed)
    build = ["avr-gcc", *FLAGS, "-mmcu=atmega328p", "avr.c", "-o", "avr.elf"]
    if subprocess.run(build, cwd=folder, capture_output=True, check=False).returncode:
        return None
    run = ["simavr", "-m", "atmega328p", "-f", "16000000", "avr.elf"]
    done = subprocess.run(run, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    lines = re.findall(r">((?:-?\d+ )+)", done.stdout + done.stderr)
    table = np.array([[int(word) for word in line.split()] for line in lines])
    static = _size((folder / "avr.c").read_text(), BOARDS[0], folder)
    if len(table) != len(rows) or static is None:
        raise RuntimeError(
            f"simavr gave {len(table)} of {len(rows)} rows: {(done.stdout + done.stderr)[-300:]}"
        )
    said, scores, ticks, stack = table[:, 0], table[:, 1:-2], table[:, -2], table[:, -1]
    ms = float(ticks.max()) * 64 / 16_000
    return {"said": said, "scores": scores, "ms": ms, "ram": static["ram"] + int(stack.max())}
