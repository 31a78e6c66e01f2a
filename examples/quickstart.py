"""Search a schedule on scikit-learn's digits, with 45 % of the training labels flipped."""

import keeprate
from keeprate.engine import TrainingConfig

data = keeprate.prepare("digits", noise="pairflip:0.45", seed=0)
run = keeprate.search(data, trials=10, config=TrainingConfig(epochs=10), out="runs/quickstart")

print("R(t):", run.schedule.keep_rate.round(2))
for result in run.record["results"]:
    print(f"{result['label']:<28} test accuracy {result['last']['test_accuracy']:.1%}")

again = keeprate.train(data, schedule="runs/quickstart", config=TrainingConfig(epochs=10), seed=1)
predicted = again.classifier.predict(data.test.inputs)
print("trained again:", f"{(predicted == data.test.labels).float().mean():.1%}")
