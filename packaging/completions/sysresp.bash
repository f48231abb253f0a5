_sysresp_completion() {
    # Where "@" ends a word (COMP_WORDBREAKS), "web@2" is several words: they are made again from the line. What
    # is replaced begins with the "@", so that of each answer what stands before it is left out.
    local IFS=$' \t\n' line=${COMP_LINE:0:COMP_POINT} words word
    read -ra words <<<"$line"
    [[ $line == *[$' \t'] ]] && words+=("")
    word=${words[-1]}
    IFS=$'\n'
    COMPREPLY=( $( env COMP_WORDS="${words[*]}" \
                   COMP_CWORD=$((${#words[@]} - 1)) \
                   _SYSRESP_COMPLETE=complete_bash $1 ) )
    [[ $COMP_WORDBREAKS == *@* && $word == *@* ]] && COMPREPLY=( "${COMPREPLY[@]#"${word%@*}"}" )
    return 0
}

complete -o default -F _sysresp_completion sysresp
