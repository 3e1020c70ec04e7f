"""PSALM: one large multi-modal model for every segmentation task (Zhang et al., ECCV 2024, arXiv 2403.14598)."""
