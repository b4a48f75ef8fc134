# shellcheck shell=sh
# Makes `conda activate` work: what changes the shell itself is done here, all else by the program.
export CONDA_EXE='/opt/conda_channel_prefix_placeholder/bin/conda'
export CONDA_PYTHON_EXE='/opt/conda_channel_prefix_placeholder/bin/python'
export _CE_M='' _CE_CONDA=''

__conda_eval() {
    __conda_commands="$("$CONDA_EXE" shell.posix "$@")" || return
    eval "$__conda_commands"
    unset __conda_commands
    hash -r
}

conda() {
    case "${1-}" in
    activate | deactivate | reactivate)
        __conda_eval "$@"
        ;;
    install | uninstall | remove | update | upgrade)
        "$CONDA_EXE" "$@" && __conda_eval reactivate
        ;;
    *)
        "$CONDA_EXE" "$@"
        ;;
    esac
}

if [ -z "${CONDA_SHLVL+x}" ]; then
    export CONDA_SHLVL=0
    PATH="/opt/conda_channel_prefix_placeholder/condabin${PATH:+:$PATH}"
    export PATH
fi
