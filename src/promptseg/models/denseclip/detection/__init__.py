"""DenseCLIP's detectors, RetinaNet and Mask R-CNN: heads, losses, cards, training."""
