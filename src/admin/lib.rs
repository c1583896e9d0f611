//! Named operations, used alike by the admin API and the command line
