"""The stage that measures a model of token sequences beside its floors."""
