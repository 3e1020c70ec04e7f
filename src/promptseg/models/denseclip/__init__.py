"""DenseCLIP: language-guided dense prediction with context-aware prompting (Rao et al., CVPR 2022, arXiv 2112.01518)."""

from __future__ import annotations
