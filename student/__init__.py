"""The student: backbone, fusion, distillation, the shard stream, training and evaluation.

Works with `transformers` absent: everything that the teacher knows comes from the target stores.
"""
