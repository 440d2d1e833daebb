"""Functions that a command line names."""


def plus_one(batch):
    return {**batch, "id": batch["id"] + 1}
