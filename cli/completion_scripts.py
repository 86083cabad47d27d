"""The scripts that `dray completion` prints, for bash, zsh and fish."""

from typing import Final

from cli.completion import PROGRAM, Option, Place, tables

_WALK: Final = """
# Where we are: sets `place`, `count` (arguments before this one) and `pending` (an option's name
# whose value comes now), from the words before this one.
_dray_walk() {
    local word name
    place=dray count=0 pending= over=
    for word in "$@"; do
        if [[ -n $pending ]]; then pending=; continue; fi
        case "$word" in
        --) over=1 ;;
        -*=*) ;;
        -*) if [[ -z $over && -n $(_dray_values "$place $word") ]]; then pending=$word; fi ;;
        *)
            for name in $(_dray_commands "$place") ""; do
                [[ $name == "$word" ]] && break
            done
            if [[ -n $name ]]; then place="$place $name"; else count=$((count + 1)); fi
            # What follows is another command's.
            [[ $place == "dray run" && $count -gt 1 ]] && over=1
            ;;
        esac
    done
}

# What may stand here, one word a line; `files` is set where files may, too.
_dray_words() {
    local references kind
    files=
    if [[ -n $pending ]]; then
        kind=$(_dray_values "$place $pending")
        case "$kind" in
        @files) files=1 ;;
        @systems) command dray suggest systems "$1" 2>/dev/null ;;
        *) printf '%s\\n' "$kind" ;;
        esac
        return
    fi
    if [[ $1 == -* && -z $over ]]; then _dray_options "$place"; return; fi
    if [[ $count -eq 0 && -n $(_dray_commands "$place") ]]; then _dray_commands "$place"; return; fi
    references=$(_dray_references "$place")
    if [[ ${references:-0} -lt 0 || ${references:-0} -gt $count ]]; then
        command dray suggest references "$1" 2>/dev/null
    fi
}
"""

_BASH: Final = """
_dray() {
    local line=${COMP_LINE:0:COMP_POINT} current= place count pending over files word rest
    local -a words
    read -ra words <<<"$line"
    if [[ $line != *[[:space:]] ]]; then
        current=${words[${#words[@]}-1]}
        unset "words[$((${#words[@]} - 1))]"
    fi
    _dray_walk "${words[@]:1}"
    COMPREPLY=()
    # What readline takes for the word begins behind the last of its word breaks.
    rest=$current
    case "$current" in
    *[:@=]*) rest=${current##*[${COMP_WORDBREAKS//[^:@=]/}]} ;;
    esac
    while read -r word; do
        [[ -n $word && $word == "$current"* ]] || continue
        COMPREPLY+=("${word:$((${#current} - ${#rest}))}")
    done < <(_dray_words "$current")
    # The gateway knows none, or it is no image that is wanted: files.
    if [[ ${#COMPREPLY[@]} -eq 0 ]]; then compopt -o default 2>/dev/null; fi
}
complete -F _dray dray
"""

_ZSH: Final = """
_dray() {
    emulate -L zsh
    setopt sh_word_split
    local place count pending over files
    local -a found
    _dray_walk "${(@)words[2,CURRENT-1]}"
    found=("${(@f)$(_dray_words "$PREFIX")}")
    found=("${(@)found:#}")
    if (( ${#found} )); then compadd -- "${found[@]}"; else _files; fi
}
if [[ ${funcstack[1]-} == _dray ]]; then _dray "$@"; else compdef _dray dray; fi
"""

_FISH: Final = """
function __dray_place
    set -l place dray
    set -l pending
    set -l count 0
    for word in (commandline -opc)[2..-1]
        if test -n "$pending"
            set pending
            continue
        end
        switch $word
            case '-*=*'
            case '-*'
                if contains -- "$place $word" $__dray_valued
                    set pending $word
                end
            case '*'
                if contains -- "$place $word" $__dray_places
                    set place "$place $word"
                else
                    set count (math $count + 1)
                end
        end
    end
    echo $place
    echo $count
end

function __dray_at
    set -l found (__dray_place)
    test "$found[1]" = "$argv[1]"
end

function __dray_reference
    set -l found (__dray_place)
    test "$found[1]" = "$argv[1]"; and test $argv[2] -lt 0 -o $argv[2] -gt $found[2]
end
"""


def bash(found: list[Place]) -> str:
    head = f"# Completion of {PROGRAM} for bash. Load it with: source <({PROGRAM} completion bash)"
    return f"{head}\n{tables(found)}{_WALK}{_BASH}"


def zsh(found: list[Place]) -> str:
    head = (
        f"#compdef {PROGRAM}\n# Completion of {PROGRAM} for zsh. Load it, after compinit, with: "
        f"source <({PROGRAM} completion zsh)"
    )
    return f"{head}\n{tables(found)}{_WALK}{_ZSH}"


def fish(found: list[Place]) -> str:
    head = f"# Completion of {PROGRAM} for fish. Load it with: {PROGRAM} completion fish | source"
    paths = " ".join(f"'{place.path}'" for place in found if " " in place.path)
    valued = " ".join(
        f"'{place.path} {name}'"
        for place in found
        for option in place.options
        if option.takes
        for name in option.names
    )
    lines = [line for place in found for line in _fish_lines(place)]
    sets = f"set -g __dray_places {paths}\nset -g __dray_valued {valued}"
    return "\n".join([head, sets + _FISH, *lines]) + "\n"


def _fish_lines(place: Place) -> list[str]:
    at = f"complete -c {PROGRAM} -n '__dray_at \"{place.path}\"'"
    lines = [f"{at} -f -a {name} -d {_quoted(text)}" for name, text in place.commands]
    lines += [f"{at} {_fish_option(option)}" for option in place.options]
    if place.references:
        asked = f"(command {PROGRAM} suggest references (commandline -ct) 2>/dev/null)"
        when = f"'__dray_reference \"{place.path}\" {place.references}'"
        alone = "" if place.files else "-f "
        lines.append(f"complete -c {PROGRAM} -n {when} {alone}-a {_quoted(asked)}")
    return lines


def _fish_option(option: Option) -> str:
    parts = [
        f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names
    ]
    if option.values:
        parts.append(f"-x -a '{' '.join(option.values)}'")
    elif option.system:
        asked = f"(command {PROGRAM} suggest systems (commandline -ct) 2>/dev/null)"
        parts.append(f"-x -a {_quoted(asked)}")
    elif option.takes:
        parts.append("-r")
    return " ".join([*parts, f"-d {_quoted(option.help)}"])


def _quoted(text: str) -> str:
    text = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
