// The page of layer programs is plain HTML but for its colours.

setUpTheme();
