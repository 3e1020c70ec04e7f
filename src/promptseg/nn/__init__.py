"""Building blocks that more than one family uses; imports only torch, `contracts` and `errors`."""
