"""A method of one's own, from its paper to a row of the table: truncated GCE loss."""

import keeprate
from keeprate.engine import every_sample, per_sample_cross_entropy

Q, K = 0.7, 0.5  # the source's q and k


def gce(logits, labels):
    """Zhang & Sabuncu 2018, Eq. (6): (1 - p^q) / q with p the probability of the label."""
    return (1 - (-Q * per_sample_cross_entropy(logits, labels)).exp()) / Q


def confident(losses, logits, labels, keep_rate):
    """Their Eq. (7): learn only from labels with a probability above k."""
    return (per_sample_cross_entropy(logits, labels).neg().exp() > K).float()


method = keeprate.Method(
    name="truncated-gce",
    label="Truncated GCE",
    source="Zhang & Sabuncu 2018, Alg. 1",
    n_networks=1,
    select=confident,
    warm_up=every_sample,
    warm_up_share=1 / 3,  # "after 40 of 120 epochs"
    loss=gce,
    uses_schedule=False,
)

if __name__ == "__main__":
    data = keeprate.prepare("digits", noise="symmetric:0.5", seed=0)
    config = keeprate.TrainingConfig(batch_size=64, learning_rate=3e-3)
    run = keeprate.train(data, schedule="constant", method=method, config=config, baselines=True)
    for result in run.results:
        print(f"{result.label:28} test accuracy {result.last.test_accuracy:.1%} at the end")
