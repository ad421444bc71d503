"""nannyml's and evidently's own defaults over chunks of files of rows. Runs in their environment, and imports nothing of ours.

    python rivals_process.py nannyml|evidently CHUNK AFTER FILE.npz ...    prints a JSON list of the last events of alarming chunks

AFTER 0: of all chunks. Else the first one of those that begin there or later: chunks are judged apart, so none before is needed.

nannyml     UnivariateDriftCalculator: Jensen-Shannon, mean + 3 standard deviations of the reference's chunks
evidently   ValueDrift: for references above 1,000 rows the normed Wasserstein distance above .1, of texts Jensen-Shannon above .1
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from typing import Any

import numpy as np
import pandas as pd

os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"
os.environ["DO_NOT_TRACK"] = "1"


def frame(values: Any) -> pd.DataFrame:
    if values.dtype.kind == "U":
        texts = pd.Series(values.astype(object))
        return pd.DataFrame({"x": texts.where(texts != "", None)})
    return pd.DataFrame({"x": values})


def by_nannyml(reference: pd.DataFrame, live: pd.DataFrame, chunk: int, after: int) -> list[int]:
    import nannyml

    calculator = nannyml.UnivariateDriftCalculator(column_names=["x"], chunk_size=chunk)
    calculator.fit(reference)
    result = calculator.calculate(live).filter(period="analysis").to_df()
    found = [int(last) for last in result.loc[result["x", "jensen_shannon", "alert"], ("chunk", "chunk", "end_index")]]
    return [last for last in found if last >= after][:1] if after else found


def by_evidently(reference: pd.DataFrame, live: pd.DataFrame, chunk: int, after: int) -> list[int]:
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    numbers = reference.x.dtype.kind == "f"
    definition = DataDefinition(numerical_columns=["x"]) if numbers else DataDefinition(categorical_columns=["x"])
    known = Dataset.from_pandas(reference, data_definition=definition)
    found = []
    for last in range(after + chunk, len(live) + 1, chunk):
        now = Dataset.from_pandas(live.iloc[last - chunk : last], data_definition=definition)
        metric = Report([ValueDrift(column="x")]).run(now, known).dict()["metrics"][0]
        threshold, method = metric["config"]["threshold"], metric["config"]["method"]
        drifted = metric["value"] < threshold if "p_value" in method else metric["value"] >= threshold
        if drifted:
            found.append(last - 1)
            if after:
                break
    return found


def main() -> None:
    tool, chunk, after, files = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    watch = {"nannyml": by_nannyml, "evidently": by_evidently}[tool]
    out = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for file in files:
            rows = np.load(file)
            out.append(watch(frame(rows["reference"]), frame(rows["live"]), chunk, after))
    print(json.dumps(out))


main()
