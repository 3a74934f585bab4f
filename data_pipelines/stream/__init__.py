"""The endless stream of packed rows of a mixture of data sets, and its batches."""
