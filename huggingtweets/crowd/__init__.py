"""Some posts of many people, learnt once, before anybody's own: `recipe.warm_start`."""
