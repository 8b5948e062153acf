//! The proof by SIGKILL: the real program is ended at each of its steps, and at any time, on a real engine, and
//! nothing is lost, nothing runs twice and nothing is left over.
//!
//! What is killed, and where, is random by a seed that each test prints. `SUPERCARGO_TEST_SEED` makes the same
//! choices again; `SUPERCARGO_TEST_POINTS=start.answered,cleanup.begun` names the steps; `make soak` goes
//! through all of them.

mod apart;
mod client;
mod guards;
mod ledger;
mod load;
mod mix;
mod points;
mod rounds;
mod seed;
mod sweep;
