"""AutoExplore as a stage: training, rounds, its log and pictures, settling detection."""
