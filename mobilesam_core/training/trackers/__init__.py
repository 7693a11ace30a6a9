"""Who is told the metrics of a run besides its folder: one file a tracker, each a logger as Fabric has them.

Fabric itself ships loggers for CSV files and TensorBoard alone. Those of Lightning for Weights & Biases and MLflow need
the whole of that package, so the few lines that are needed are here, against Fabric's interface.
"""
