"""How far verdicts can be trusted: a folder of labelled images, classified through the server, and what comes of it.

`folder` says which file has which label, `run` classifies them and goes on where an earlier run stopped, `measures`
makes figures of the answers, `report`, `plots` and `output` show and write them. `deepfake evaluate` puts it together.
`calibration` fits a decision policy to the answers for `deepfake calibrate`, `decisions` measures what a policy decides,
and `reference` compares the answers with those of transformers. All but `run` and what it uses need the extra `evaluate`
(scikit-learn with scipy, matplotlib).
"""
