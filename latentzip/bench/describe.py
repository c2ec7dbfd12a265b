"""What goes with the figures of a comparison, in words: codecs, metrics, and what was left out."""

from collections.abc import Sequence

from latentzip.bench.metrics import PSNR, SQUARES, Metric
from latentzip.bench.networks import Model
from latentzip.bench.runner import Codec
from latentzip.bench.summary import Summary
from latentzip.bench.tables import TRAINED

BPP = "8 × bytes of the file ÷ pixels of the picture"


def codec_text(codec: Codec) -> str:
    return f"{codec.settings}; {codec.library_version}"


def metric_text(metric: Metric) -> str:
    direction = "higher" if metric.higher_is_better else "lower"
    return f"{direction} is better; {metric.source}"


def trained_text(summary: Summary) -> str:
    """Which figures were in the losses of which models; empty where there are none."""
    parts = [
        f"{codec.title}: {', '.join(titles)}"
        for codec in summary.codecs
        if isinstance(codec, Model)
        and (titles := [metric.title for metric in summary.metrics if summary.is_trained_on(codec, metric)])
    ]
    why = "in the model's training loss, itself or another figure by the same network, which flatters the model"
    return f"{TRAINED} {why} ({'; '.join(parts)})" if parts else ""


def notes(summary: Summary) -> list[str]:
    """Lines that go below the tables."""
    lines = [f"{codec.title}: {codec_text(codec)}" for codec in summary.codecs]
    lines += [text for text in (trained_text(summary),) if text]
    return [*lines, *summary.remarks]


def headline(summary: Summary) -> str:
    """The default model against the anchor, by a metric it was not trained on where there is one."""
    count = len(summary.sources)
    plain = f"{len(summary.codecs)} codecs on {count} picture{'s' if count != 1 else ''}, in real bytes"
    models = [codec for codec in summary.codecs if isinstance(codec, Model) and codec is not summary.anchor]
    if not models:
        return plain
    for metric in _by_fairness(summary, models[0]):
        comparison = summary.at_equal_quality.get((models[0].name, metric.key))
        if comparison is not None and comparison.change is not None:
            change = round(comparison.change)
            amount = f"{abs(change)} % {'fewer' if change < 0 else 'more'} bytes than" if change else "the bytes of"
            return f"For equal {metric.title} {models[0].title} needs {amount} {summary.anchor.title}"
    return plain


def _by_fairness(summary: Summary, model: Model) -> Sequence[Metric]:
    """Those that it was not trained on first, and squared errors, which say little of looks, after those."""
    plain = {metric.key for metric in (PSNR, *SQUARES)}
    return sorted(summary.metrics, key=lambda metric: (metric.key in model.trained_on, metric.key in plain))
