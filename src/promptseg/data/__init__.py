"""Readers of published data sets and of one's own photos, and the items for training and testing that are made of them.

`catalogue` names every data set; `samples` says what readers give, `items` what training takes.
"""
