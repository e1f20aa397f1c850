"""Why a key got its score: what was served, what the model saw, what each feature contributed, and the same bits."""
