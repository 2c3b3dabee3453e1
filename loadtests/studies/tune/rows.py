"""What is measured: what is shipped, and one setting away from it in each direction that could be better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from deepfake_deploy.export import Precision

from loadtests.studies.model_speed.repositories import Settings
from loadtests.studies.model_speed.variants import Variant

GLIBC_DEFAULT = "glibc's allocator as it comes"
# What libgomp does where OMP_WAIT_POLICY is not set.
_SPIN_A_WHILE = {"GOMP_SPINCOUNT": "300000"}


@dataclass(frozen=True)
class BareRow:
    """One row of the bare model's table."""

    factor: str
    setting: str
    variant: Variant
    batch: int
    threads: int | None = None
    attention: str | None = None
    keep_memory: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)
    """Over what the embedded Triton sets."""

    @property
    def process(self) -> tuple[Variant, bool, tuple[tuple[str, str], ...]]:
        """What is settled when a process starts; rows that agree in it share one."""
        return self.variant, self.keep_memory, tuple(self.environment.items())


@dataclass(frozen=True)
class ServedRow:
    """One row of the served model's table."""

    factor: str
    setting: str
    settings: Settings = field(default_factory=Settings)
    environment: Mapping[str, str] = field(default_factory=dict)


def bare_rows(precision: Precision, batch: int, cores: int, *, complete: bool) -> list[BareRow]:
    """Rows for a machine with so many cores; the first is what is shipped.

    Args:
        precision: what `--precision auto` chooses there.
        batch: max_batch_size as shipped.
        complete: also what is known to be slow, or to make no difference where it was measured.
    """
    shipped = Variant(precision)
    rows = [BareRow("as shipped", f"{precision.value}, batch {batch}, {cores} threads", shipped, batch)]
    others = (Precision.FP32, Precision.BF16, *([Precision.FP16] if complete else []))
    rows += [BareRow("precision", each.value, Variant(each), batch) for each in others if each is not precision]
    sizes = {1, 2, batch // 2, batch * 2, *([batch * 4] if complete else [])} - {0, batch}
    rows += [BareRow("batch size", str(size), shipped, size) for size in sorted(sizes)]
    counts = {max(cores // 2, 1), cores - 1, cores * 2} - {0, cores}
    rows += [BareRow("threads", str(count), shipped, batch, threads=count) for count in sorted(counts)]
    rows += [
        BareRow("layout", "image copied to contiguous", Variant(precision, "contiguous"), batch),
        BareRow("layout", "convolution's weights channels_last", Variant(precision, "channels_last weights"), batch),
    ]
    if complete:
        rows.append(BareRow("layout", "residual stream left strided", Variant(precision, "strided residual"), batch))
    rows += [
        BareRow("attention", "math kernel", shipped, batch, attention="math"),
        BareRow("attention", "eager", Variant(precision, attention="eager"), batch),
        BareRow("memory", GLIBC_DEFAULT, shipped, batch, keep_memory=False, environment={"THP_MEM_ALLOC_ENABLE": "0"}),
        BareRow("memory", "freed memory kept, small pages", shipped, batch, environment={"THP_MEM_ALLOC_ENABLE": "0"}),
        BareRow("waiting threads", "spin for 3 ms, OpenMP's default", shipped, batch, environment=_SPIN_A_WHILE),
    ]
    if complete:
        spinning = {"OMP_WAIT_POLICY": "ACTIVE"}
        rows.append(BareRow("waiting threads", "always spin", shipped, batch, environment=spinning))
    return rows


def image_rows() -> list[ServedRow]:
    """Rows for callers who send image files; the first is what is shipped."""
    return [
        ServedRow("as shipped", "2 instances in turns"),
        ServedRow("image_decoder's queue delay", "0", Settings(decoder_queue_delay_microseconds=0)),
        ServedRow("instances", "1", Settings(instances=1)),
        ServedRow(
            "both",
            "1 instance, image_decoder's queue delay 0",
            Settings(instances=1, decoder_queue_delay_microseconds=0),
        ),
    ]


def served_rows(batch: int, delay_us: int, cores: int, *, complete: bool) -> list[ServedRow]:
    """Rows for the embedded Triton at saturation; the first is what is shipped."""
    half = max(cores // 2, 1)
    rows = [
        ServedRow("as shipped", f"batch {batch}, delay {delay_us / 1000:g} ms, 2 instances in turns, {cores} threads"),
        ServedRow("max_batch_size", str(max(batch // 2, 1)), Settings(max_batch_size=max(batch // 2, 1))),
        ServedRow("max_batch_size", str(batch * 2), Settings(max_batch_size=batch * 2)),
        ServedRow("queue delay", "0", Settings(max_queue_delay_microseconds=0)),
        ServedRow("instances", "1", Settings(instances=1)),
        ServedRow("instances", "2 at once", Settings(at_once=True)),
        ServedRow("instances", f"2 at once, each on {half} of {cores} cores", Settings(at_once=True, threads=half)),
        ServedRow("waiting threads", "spin for 3 ms, OpenMP's default", environment=_SPIN_A_WHILE),
    ]
    if complete:
        rows += [
            ServedRow("max_batch_size", "1", Settings(max_batch_size=1)),
            ServedRow("queue delay", "50 ms", Settings(max_queue_delay_microseconds=50_000)),
            ServedRow("threads", str(cores * 2), Settings(threads=cores * 2)),
        ]
    if cores > 1:
        rows.append(ServedRow("threads", str(cores - 1), Settings(threads=cores - 1)))
    return rows
