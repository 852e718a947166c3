# One attempt at a task that may be stopped and started again; sourced by the scripts beside it.
#
#   begin_attempt             say who we are and when we have to be done
#   refuse WORDS...           end what cannot be run, with one sentence
#   run_attempt COMMAND...    run the command once on every node; then end, or be requeued once
#
# Settings, from the environment of sbatch:
: "${HUGGINGTWEETS_LEAD_S:=240}"     # all should be done so long before the time limit; above --signal
: "${HUGGINGTWEETS_MAX_IDLE:=5}"     # attempts in a row that got nowhere, after which we give up
: "${HUGGINGTWEETS_MARKS:=.slurm}"   # folder of the marks, on a file system that all nodes see
LAUNCH_DIR=${HUGGINGTWEETS_LAUNCH_DIR:-launch}

# What the launcher starts: train.py of a clone, else the same from the installed package.
TRAIN=(-m huggingtweets.train)
if grep -qs "from huggingtweets import train" train.py; then TRAIN=(train.py); fi

say() { echo "slurm: $*" >&2; }
refuse() {
    say "$@"
    rm -f "$mark".*
    exit 2
}

# SLURM's answer; asked for again where there is none, as while its controller is started anew.
ask() {
    local pause
    for pause in 0 5 10 15; do
        sleep "$pause"
        if "$@"; then return 0; fi
    done
    return 1
}

begin_attempt() {
    # Not SLURM_JOB_ID: the last task of an array has the number of the whole array, and requeueing
    # that one starts every task again.
    me=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
    me=${me:-$SLURM_JOB_ID}
    attempt=${SLURM_RESTART_COUNT:-0}
    mkdir -p "$HUGGINGTWEETS_MARKS"
    mark=$(realpath "$HUGGINGTWEETS_MARKS")/${SLURM_CLUSTER_NAME:-cluster}-$me
    if [[ $attempt == 0 ]]; then rm -f "$mark".*; fi  # job numbers come round again
    echo "$attempt" >"$mark.attempt.tmp"
    mv "$mark.attempt.tmp" "$mark.attempt"
    local ends
    unset HUGGINGTWEETS_DONE_BY
    # Without an answer there is no time to be done by: of nothing `date` makes this morning.
    ends=$(ask squeue -h -j "$me" -o %e 2>/dev/null) || ends=
    ends=$(date -d "${ends:-unknown}" +%s 2>/dev/null) || ends=
    if [[ -n $ends ]] && ((ends <= $(date +%s))); then ends=; fi
    if [[ -n $ends ]]; then export HUGGINGTWEETS_DONE_BY=$((ends - HUGGINGTWEETS_LEAD_S)); fi
    export HUGGINGTWEETS_MARK=$mark HUGGINGTWEETS_ATTEMPT=$attempt
    # Bars redraw themselves with carriage returns, which make a log file unreadable.
    export HF_HUB_DISABLE_PROGRESS_BARS=1 TQDM_DISABLE=1 WANDB_CONSOLE=off
    is_requeued=
    say "task $me attempt $attempt on $SLURM_JOB_NODELIST, ends ${ends:+$(date -d "@$ends" '+%F %T')}"
}

run_attempt() {
    # The signals reach the launchers too: those of one process would die of them and take SLURM's
    # step along. They ignore them; train.py sets its own handlers, saves and ends, and so do they.
    # An empty CONTAINER is an unknown one to bash 4.2.
    srun --kill-on-bad-exit=1 --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" \
        --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
        bash -c 'trap "" USR1 TERM; exec "$@"' task ${CONTAINER[@]+"${CONTAINER[@]}"} "$@" &
    local child=$!
    # A trap runs once the foreground command has ended, so srun is not in the foreground; and
    # `wait` returns for every signal.
    trap 'if is_time_limit; then requeue; fi' TERM
    trap : USR1
    while kill -0 "$child" 2>/dev/null; do wait "$child" || true; done
    settle
}

# Job state as SLURM tells it, such as RUNNING; and whether it was the time limit that ended the job.
said_of_job() { ask scontrol -o show job "$me" 2>/dev/null; }
state_of_job() { said_of_job | grep -o 'JobState=[A-Z_]*' | cut -d= -f2; }
is_time_limit() { [[ $(said_of_job) == *' Reason=TimeLimit '* ]]; }
is_newest() { [[ $(cat "$mark.attempt" 2>/dev/null) == "$attempt" ]]; }

settle() {
    local code
    code=$(cat "$mark.exit-$attempt" 2>/dev/null) || code=
    if ! is_newest; then
        say "attempt $attempt was given up as dead and has a successor; it leaves all to it"
        rm -f "$mark.exit-$attempt" "$mark.progress-$attempt"
        exit 0
    fi
    if [[ -n $code && $code != 75 ]]; then
        rm -f "$mark".*
        look_after_others || true
        exit "$code"
    fi
    # While SLURM ends the job itself, it is not RUNNING: cancelled, or preempted and requeued. What
    # it says nothing of, it does not end.
    local state
    state=$(state_of_job) || state=RUNNING
    if [[ $state == RUNNING ]] || is_time_limit; then
        requeue
    fi
    exit 75
}

# A held task waits for ever, and a job that waits for it too. Those that SLURM held by itself, as it
# does when a node was set down and resumed ("launch failed requeued held"), are let go. Where somebody
# holds all that is left, the last job of `submit` begins without them.
look_after_others() {
    [[ -n ${SLURM_ARRAY_JOB_ID:-} ]] || return 0
    local other state reason left= held= last
    while IFS='|' read -r other state reason; do
        if [[ $state == PENDING && $reason =~ requeued[\ _]held|JobHoldMaxRequeue ]]; then
            say "task $other: SLURM holds it ($reason); it is let go"
            if scontrol release "$other"; then left=yes; else held=yes; fi
        elif [[ $state == PENDING && $reason =~ [Hh]eld ]]; then
            held=yes
        elif [[ $state == PENDING || -e ${mark%-*}-$other.attempt ]]; then
            left=yes # it looks after the others when it ends
        fi
    done < <(squeue -h -r -j "$SLURM_ARRAY_JOB_ID" -o '%i|%T|%r' | grep -v "^$me|")
    if [[ -n $left || -z $held ]]; then return; fi
    while read -r last; do
        say "job $last begins without the tasks that are held"
        scontrol update jobid="$last" dependency=
    done < <(squeue -h -u "$(id -un)" -t PENDING -n huggingtweets-last -o '%i|%E' |
        grep -E "afterany:${SLURM_ARRAY_JOB_ID}(_|[^0-9]|$)" | cut -d'|' -f1)
}

requeue() { # at most once an attempt
    if [[ -n $is_requeued ]] || ! is_newest; then return; fi
    is_requeued=yes
    local idle=0
    if [[ ! -e $mark.progress-$attempt ]]; then
        idle=$(($(cat "$mark.idle" 2>/dev/null || echo 0) + 1))
    fi
    echo "$idle" >"$mark.idle"
    if ((idle >= HUGGINGTWEETS_MAX_IDLE)); then
        say "task $me: got $idle attempts in a row that finished nothing and saved nothing;" \
            "expected progress; look above for why, or give it more --time"
        rm -f "$mark".*
        exit 1
    fi
    say "task $me: attempt $attempt is over, asking to be started again"
    if ask scontrol requeue "$me"; then
        # Ended by SLURM: with an exit before that the job could count as completed.
        sleep 120
    fi
}
