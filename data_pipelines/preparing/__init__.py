"""Whole data sets from files, by several processes or machines, from where they were ended."""
