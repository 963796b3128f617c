"""The flights' delay by a neural network, on as many processes and GPUs as ``training.distributed`` says.

The same parameters, seed and data give the same network on one process and on many, up to the last bits of sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_mlops.contract import DataError, Job, ModelCode, main

if TYPE_CHECKING:
    from pathlib import Path

    from network import Network
    from torch import Tensor


class NeuralDelay(ModelCode):
    """Probability of a target of 0 and 1, from columns of numbers."""

    name = "neural-delay"
    version = "1.0.0"
    paradigm = "classification"
    parameters: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "hidden": {
            "type": "integer",
            "minimum": 1,
            "maximum": 4096,
            "default": 32,
            "description": "Hidden units.",
        },
        "epochs": {
            "type": "integer",
            "minimum": 1,
            "maximum": 1000,
            "default": 5,
            "description": "Passes over train.",
        },
        "batch_size": {
            "type": "integer",
            "minimum": 1,
            "default": 1024,
            "description": "Rows a step, over all processes together.",
        },
        "learning_rate": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 1,
            "default": 0.005,
            "description": "Of Adam.",
        },
    }

    def train(self, job: Job) -> Network:
        """Minimise the log loss; every process sees the same batches and works on its share."""
        import torch
        from network import Network, parallel, process_group, step

        torch.manual_seed(job.seed)
        rows, targets = _read(job, "train")
        network = Network(rows.shape[1], job.parameters["hidden"])
        network.standardise_by(rows)
        with process_group(job.world_size) as device:
            network.to(device)
            shared = parallel(network, device, job.world_size)
            optimizer = torch.optim.Adam(network.parameters(), lr=job.parameters["learning_rate"])
            for epoch in range(job.parameters["epochs"]):
                loss = torch.zeros((), device=device)
                for batch in torch.randperm(len(rows)).split(job.parameters["batch_size"]):
                    taken = (rows[batch].to(device), targets[batch].to(device))
                    loss += step(shared, *taken, optimizer, job.rank, job.world_size) * len(batch)
                if job.world_size > 1:
                    torch.distributed.all_reduce(loss)
                loss /= job.world_size
                _report(job, loss.item() / len(rows), epoch)
        job.log_metric("processes", job.world_size, split="train")
        return network.cpu()

    def save(self, model: Network, directory: Path, job: Job) -> None:  # noqa: ARG002
        """Weights as plain arrays, which nobody has to unpickle."""
        import numpy as np

        weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
        np.savez(directory / "weights.npz", **weights)
        (directory / "MLmodel").write_text("flavors:\n  numpy:\n    data: weights.npz\n")

    def load(self, directory: Path) -> Network:
        """The network of the arrays."""
        import numpy as np
        import torch
        from network import Network

        with np.load(directory / "weights.npz", allow_pickle=False) as weights:
            state = {name: torch.from_numpy(weights[name]) for name in weights.files}
        hidden, inputs = state["layers.0.weight"].shape
        network = Network(inputs, hidden)
        network.load_state_dict(state)
        return network

    def evaluate(self, model: Network, job: Job) -> None:
        """Log loss and accuracy on ``test``, and the probability of every row."""
        import torch

        rows, targets = _read(job, "test")
        with torch.no_grad():
            logits = model(rows)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets).item()
        right = ((logits > 0).float() == targets).double().mean().item()
        job.log_metric("log_loss", loss, split="test", direction="minimize", n=len(rows))
        job.log_metric("accuracy", right, split="test", direction="maximize", n=len(rows))
        _write(job, "test", logits)

    def predict(self, model: Network, job: Job) -> None:
        """The probability of every row."""
        import torch

        rows, _ = _read(job, "predict", targets=False)
        with torch.no_grad():
            _write(job, "predict", model(rows))


def _report(job: Job, loss: float, epoch: int) -> None:
    job.log_metric("log_loss", loss, step=epoch, split="train", direction="minimize")
    job.progress({"log_loss": loss}, step=epoch + 1, total=job.parameters["epochs"])


def _read(job: Job, split: str, *, targets: bool = True) -> tuple[Tensor, Tensor]:
    import numpy as np
    import pyarrow.parquet as pq
    import torch

    wanted = [*job.columns.features, *(job.columns.targets if targets else ())]
    table = pq.ParquetDataset(job.files(split)).read()
    job.require_columns(table.column_names, wanted, split)
    columns = []
    for name in job.columns.features:
        try:
            columns.append(table[name].cast("float32").to_numpy())
        except ValueError as error:  # pyarrow's errors are
            raise DataError(f"{split}: column {name} is no column of numbers: {error}.") from error
    rows = torch.from_numpy(np.column_stack(columns))
    if not targets:
        return rows, torch.zeros(len(rows))
    target = table[job.columns.targets[0]].cast("float32").to_numpy()
    return rows, torch.from_numpy(np.array(target))


def _write(job: Job, split: str, logits: Tensor) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.ParquetDataset(job.files(split)).read(columns=list(job.columns.keys))
    table = table.append_column("prediction", pa.array(logits.sigmoid().double().numpy()))
    pq.write_table(table, job.paths.predictions)


if __name__ == "__main__":
    main(NeuralDelay)
