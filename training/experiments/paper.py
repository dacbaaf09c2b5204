"""The paper's numbers that it gives as pictures only, read off Fig. 2 to 4; accuracies in %, ELBOs in nats."""

from training.starts.fills import DWP, DWP_OWN, LEARNED, LEARNED_OWN, XAVIER

LABELS = {DWP: "dwp", DWP_OWN: "dwp", XAVIER: "xavier", LEARNED: "filters", LEARNED_OWN: "filters"}
"""What the paper calls an initialisation; its scales are the source's own and, for dwp, the decoder's means."""

FEW_LABELS = {
    "dwp": (80.0, 86.7, 91.5, 94.5, 96.1),
    "log-uniform": (76.6, 83.9, 89.4, 93.8, 95.8),
    "standard normal": (71.7, 81.6, 89.0, 93.8, 95.9),
}
"""Fig. 2(a) by prior: test accuracy from 50 to 1,000 labels, from the legend of the authors' notebook."""

RANDOM_FEATURES: dict[str, dict[str, dict[float, tuple[float, float]]]] = {
    "mnist": {
        "dwp": {
            1 / 16: (95.65, 0.48),
            1 / 8: (97.0, 0.36),
            1 / 4: (97.63, 0.16),
            1 / 2: (97.96, 0.14),
            1: (98.26, 0.13),
        },
        "xavier": {
            1 / 16: (93.05, 0.84),
            1 / 8: (95.6, 0.46),
            1 / 4: (97.17, 0.24),
            1 / 2: (97.87, 0.2),
            1: (98.31, 0.08),
        },
        "filters": {
            1 / 16: (96.28, 0.26),
            1 / 8: (97.24, 0.3),
            1 / 4: (97.87, 0.21),
            1 / 2: (98.44, 0.21),
            1: (98.68, 0.13),
        },
    },
    "cifar10": {
        "dwp": {1 / 8: (63.7, 0.55), 1 / 4: (65.93, 0.74), 1 / 2: (67.73, 0.62), 1: (68.95, 0.63)},
        "xavier": {1 / 8: (62.15, 0.46), 1 / 4: (63.86, 0.53), 1 / 2: (64.95, 0.48), 1: (65.6, 0.35)},
        "filters": {1 / 8: (65.29, 1.53), 1 / 4: (68.04, 1.48), 1 / 2: (70.28, 0.7), 1: (71.02, 0.65)},
    },
}
"""Fig. 3 by data set, initialisation and scale k: mean and standard deviation of ten runs; ±0.03."""

STEPS_TO: dict[str, dict[str, dict[float, float]]] = {
    "fig4a": {
        "dwp": {
            -200: 33,
            -180: 54,
            -160: 74,
            -140: 109,
            -120: 170,
            -110: 239,
            -105: 300,
            -100: 393,
            -97: 521,
            -95: 634,
        },
        "filters": {
            -200: 35,
            -180: 47,
            -160: 66,
            -140: 101,
            -120: 175,
            -110: 261,
            -105: 332,
            -100: 456,
            -97: 603,
            -95: 801,
        },
        "xavier": {-200: 101, -180: 151, -160: 200, -140: 260, -120: 366, -110: 466, -105: 542, -100: 685, -97: 837},
    },
    "fig4b": {
        "dwp": {92: 19, 94: 29, 95: 36, 96: 47, 96.5: 54, 97: 75, 97.5: 119, 98: 165},
        "filters": {92: 14, 94: 20, 95: 24, 96: 34, 96.5: 43, 97: 56, 97.5: 77, 98: 142},
        "xavier": {92: 43, 94: 61, 95: 76, 96: 92, 96.5: 111, 97: 139, 97.5: 169, 98: 244},
    },
    "fig4c": {
        "dwp": {20: 10, 30: 24, 40: 38, 45: 50, 50: 114, 55: 222, 60: 372},
        "filters": {20: 9, 30: 21, 40: 33, 45: 52, 50: 99, 55: 152, 60: 283},
        "xavier": {20: 44, 30: 55, 40: 126, 45: 174, 50: 294},
    },
}
"""Fig. 4 by part, initialisation and level: steps to reach it; ±8 (a), ±3 to ±8 (b), ±8 to ±20 (c)."""
