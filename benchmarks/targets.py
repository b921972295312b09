"""One file for many machines: bytes of text by Debian's clang -Oz and by `secondpass cc` behind it, at each effort.

    python benchmarks/targets.py [--efforts 0 1] [SOURCE]        # examples/codec.c, which needs no library

Needs `apt-get install clang-19`: the bundled clang has the back end of x86 alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from secondpass.errors import run_script
from secondpass.llvm import objects

CODEC = Path(__file__).parent.parent / "examples" / "codec.c"
LLVM = "/usr/lib/llvm-19"
TARGETS = {
    "ARM Cortex-M0": "--target=thumbv6m-none-eabi -mcpu=cortex-m0",
    "ARM Cortex-M4": "--target=thumbv7em-none-eabi -mcpu=cortex-m4",
    "RISC-V, 32 bits": "--target=riscv32-unknown-elf -march=rv32imac",
    "MSP430": "--target=msp430-none-elf",
    "AVR": "--target=avr -mmcu=atmega328p",
    "MIPS": "--target=mipsel-unknown-elf",
    "AArch64": "--target=aarch64-unknown-elf",
    "WebAssembly": "--target=wasm32",
    "x86-64": "--target=x86_64-unknown-elf",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("source", nargs="?", type=Path, default=CODEC)
    parser.add_argument("--efforts", nargs="+", default=["0"])
    options = parser.parse_args()
    print(f"| machine | options | clang -Oz |{''.join(f' effort {it} | |' for it in options.efforts)}")
    print(f"|---|---|---:|{'---:|---:|' * len(options.efforts)}")
    for name, target in TARGETS.items():
        words = [*target.split(), "-ffreestanding", "-Oz", "-c", str(options.source)]
        base = text_size([f"{LLVM}/bin/clang", *words], {})
        print(f"| {name} | `{target}` | {base:,} |", end="", flush=True)
        for effort in options.efforts:
            settings = {"SECONDPASS_EFFORT": effort, "SECONDPASS_LLVM": LLVM, "SECONDPASS_CACHE_SIZE": "0"}
            made = text_size([sys.executable, "-m", "secondpass", "cc", *words], settings)
            print(f" {made:,} | {made / base - 1:+.1%} |", end="", flush=True)
        print()
    return 0


def text_size(command: list[str], settings: dict[str, str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "made.o")
        subprocess.run([*command, "-o", made], check=True, env=os.environ | settings)
        return objects.text_size(made.read_bytes())


if __name__ == "__main__":
    sys.exit(run_script(main))
