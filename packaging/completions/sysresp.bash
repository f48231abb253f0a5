_sysresp_completion() {
    # bash may break words at "@" (COMP_WORDBREAKS), which is part of "web@2": the words are made again from the
    # line, and of each answer only what stands for bash's own last word is given back.
    local IFS=$' \t\n' line=${COMP_LINE:0:COMP_POINT} words word
    read -ra words <<<"$line"
    [[ $line == *[$' \t'] ]] && words+=("")
    word=${words[-1]}
    IFS=$'\n'
    COMPREPLY=( $( env COMP_WORDS="${words[*]}" \
                   COMP_CWORD=$((${#words[@]} - 1)) \
                   _SYSRESP_COMPLETE=complete_bash $1 ) )
    COMPREPLY=( "${COMPREPLY[@]#"${word%"${COMP_WORDS[COMP_CWORD]}"}"}" )
    return 0
}

complete -o default -F _sysresp_completion sysresp
