# The environment of every job: the one place to change for your cluster. Sourced by the scripts
# beside it, in the folder where sbatch was called; what the submitting shell exported is there too.

# -- modules -----------------------------------------------------------------------------------------
# module purge
# module load cuda/12.4 python/3.12

# -- Python ------------------------------------------------------------------------------------------
# The virtual environment that was active when you submitted; else the one that `make demo` makes, if
# it is there; else what PATH has.
if [[ -z ${VIRTUAL_ENV:-} && -f .venv/bin/activate ]]; then
    source .venv/bin/activate
fi

# -- container ---------------------------------------------------------------------------------------
# Words put before every command that runs on the compute nodes. For Apptainer, for example:
# CONTAINER=(apptainer exec --nv --bind "$PWD" huggingtweets.sif)
CONTAINER=()

# -- network -----------------------------------------------------------------------------------------
# Several nodes: the interface that they see each other by, where it is not found by itself.
# export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0
# Once `huggingtweets prefetch` has been run (`huggingtweets submit` sets it by itself):
# export HF_HUB_OFFLINE=1
