//! The room write pipeline and all that is derived from it in the same commit
