"""One file a peer: ``write`` makes its data, ``epochs`` reads them.

``write(workload, rows, path)`` is missing where the peer reads the Lance table.
``epochs(task)`` returns what is called for each epoch; batches have the column
``id``. ``orders`` holds shuffles that are measured without reading.
"""
