//! The contract of a runner, held to every backend: one suite of cases, one test for each case and
//! backend. A backend that is not there says why its cases were skipped; with
//! `SUPERCARGO_TEST_REQUIRE=docker` or `CI=true` they fail instead.

mod docker_only;
mod docker_pull;
mod launch;
mod life;
mod logs;
mod outputs;

macro_rules! suite {
    ($($(#[$meta:meta])* $module:ident::$case:ident,)*) => {
        mod fake {
            use crate::support::subject::{Subject, run};

            $($(#[$meta])*
            #[tokio::test]
            async fn $case() {
                run(Subject::fake(), super::$module::$case).await;
            })*
        }

        mod docker {
            use crate::support::subject::{Subject, run};

            $($(#[$meta])*
            #[tokio::test]
            async fn $case() {
                run(Subject::docker(), super::$module::$case).await;
            })*
        }

        mod kubernetes {
            use crate::support::subject::{Subject, run};

            $($(#[$meta])*
            #[tokio::test]
            async fn $case() {
                run(Subject::kubernetes(), super::$module::$case).await;
            })*
        }
    };
}

suite! {
    launch::launch_runs_the_task_and_its_exit_code_is_read,
    launch::launch_twice_starts_once,
    launch::concurrent_launches_start_once,
    launch::launch_after_the_exit_does_not_run_it_again,
    #[cfg(feature = "failpoints")]
    launch::without_a_look_before_the_start_it_runs_again,
    launch::another_spec_under_the_same_key_is_refused,
    launch::a_created_one_is_started_by_the_next_launch,
    launch::a_start_whose_answer_is_lost_happens_once,
    launch::one_that_was_put_aside_is_not_started_by_a_late_start,
    launch::one_that_was_removed_is_not_started_by_a_late_start,
    launch::one_that_was_adopted_is_not_started_by_a_late_start,
    launch::what_was_adopted_is_found_and_removed_by_its_key,
    launch::whoever_is_not_sure_to_be_the_holder_starts_nothing,
    launch::another_engine_launches_nothing,
    launch::an_engine_that_is_down_is_unavailable_to_a_launch,
    launch::a_cancelled_launch_starts_nothing,
    launch::a_start_that_fails_is_refused_and_stays_an_end,
    life::absent_is_said_only_by_the_same_engine,
    life::an_engine_that_is_down_says_nothing,
    life::the_state_of_the_engine_is_told,
    life::wait_goes_on_while_the_engine_is_away,
    life::vanished_is_not_an_exit,
    life::wait_works_before_after_and_concurrently,
    life::a_dropped_wait_changes_nothing,
    life::a_graceful_kill_is_answered_by_the_task,
    life::a_task_may_ignore_the_graceful_kill_and_not_the_other,
    life::a_kill_of_what_does_not_run_says_so,
    life::cleanup_is_idempotent_and_leaves_nothing,
    life::cleanup_after_half_a_launch_leaves_nothing,
    life::a_kept_one_is_absent_and_listed_and_its_log_stays,
    life::a_running_one_is_not_put_aside,
    life::list_owned_has_this_installation_only,
    life::death_for_memory_is_told,
    life::another_worker_adopts,
    logs::the_log_is_whole_and_the_same_each_time,
    logs::a_followed_log_ends_with_the_exit,
    logs::a_log_resumes_without_loss_or_repetition,
    logs::the_end_of_a_log_is_read_alone,
    logs::the_streams_are_told_apart,
    logs::a_followed_log_breaks_off_with_an_error_when_the_engine_goes,
    logs::an_empty_log_is_empty,
    outputs::the_output_file_is_collected,
    outputs::no_output_file_is_absent,
    outputs::a_large_output_file_is_told_by_its_size,
    outputs::files_are_stored_or_told_missing_or_too_large,
    outputs::collecting_again_stores_the_same,
}
