class PretrainedWeightsError(Exception):
    pass
