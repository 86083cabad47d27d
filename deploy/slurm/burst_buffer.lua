-- Images come while their job is pending: Slurm's burst_buffer/lua asks Dray to stage them in.
--
-- Belongs beside slurm.conf, together with burst_buffer.conf (an example lies beside this file) and
-- BurstBufferType=burst_buffer/lua. A job takes part if a line of it says
--
--     #BB_LUA dray image=registry.example.org/group/solver:2.1
--
-- which job_submit.lua adds for `--image` where the image is not READY yet; a user, or --bb, may
-- write it as well. Every other job, and every other line, is left alone: a site with a burst
-- buffer of its own calls our functions from its.
--
-- slurmctld calls job_process, pools and paths while it holds its locks: they only read a small
-- file. All else runs in a process of its own, which slurmctld ends with the job, and may be called
-- again after slurmctld was killed: whatever is done here can be done twice. Runs as slurmctld's
-- user, who must be one of the gateway's `admins`. For Lua 5.1 to 5.4, and Slurm 22.05 or newer.

-- What a site may have to change ------------------------------------------------------------------

local CONF = "/etc/dray/hooks.conf" -- DRAY, TIMEOUT, DRAY_URL; SCONTROL, if not /usr/bin/scontrol
local STAGE_SECONDS = 23 * 3600 -- less than StageInTimeout of burst_buffer.conf: ours says why
local HOOK_SECONDS = 30 -- less than OtherTimeout

----------------------------------------------------------------------------------------------------

local DIRECTIVE = "^#BB_LUA%s+dray%s+(.*)$"
local SCONTROL = '"${SCONTROL:-/usr/bin/scontrol}"'
local MOST_IMAGES = 32
local MOST_REASON = 300

-- Beside the job's script, in slurmctld's state: they survive it, and move with it to a backup.
local OWNER_FILE = "dray.uid"
local RESULT_FILE = "dray.env"

local function beside(job_script, name)
    return (job_script:gsub("[^/]*$", "")) .. name
end

local function read_file(path)
    local file = io.open(path, "r")
    if not file then
        return nil
    end
    local text = file:read("*a")
    file:close()
    return text
end

local function write_file(path, text)
    local partial = path .. ".new"
    local file, reason = io.open(partial, "w")
    if not file then
        return nil, reason
    end
    local written = file:write(text) and file:close()
    if not written then
        return nil, "cannot write " .. partial
    end
    return os.rename(partial, path)
end

-- Job scripts are the users': nothing of them reaches a command that was not looked at here.
local PATTERNS = {
    image = "^[%w%[][%w%._:/@%[%]%-]*$",
    system = "^%w[%w%._%-]*$",
}

-- Takes one word of a directive into `wanted`; else returns what is wrong with it.
local function take(wanted, word)
    local name, value = word:match("^(%l+)=(.*)$")
    if not PATTERNS[name or ""] then
        return "write '#BB_LUA dray image=REFERENCE', without '" .. word .. "'"
    elseif #value > 512 or not value:match(PATTERNS[name]) then
        return "'" .. value .. "' names no " .. name
    elseif name == "system" then
        wanted.system = value
    elseif #wanted.images == MOST_IMAGES then
        return "a job may have at most " .. MOST_IMAGES .. " images"
    else
        wanted.images[#wanted.images + 1] = value
    end
end

-- The images that a job wants staged in, or nil and what is wrong with how it says so.
local function wanted_by(job_script)
    local script, reason = io.open(job_script, "r")
    if not script then
        return nil, "cannot read the job's script: " .. reason
    end
    local wanted = { images = {} }
    for line in script:lines() do
        if line:sub(1, 1) ~= "#" then
            break -- as Slurm does
        end
        for word in (line:match(DIRECTIVE) or ""):gmatch("%S+") do
            reason = reason or take(wanted, word)
        end
    end
    script:close()
    if reason then
        return nil, reason
    end
    return wanted
end

local function quoted(word)
    return "'" .. tostring(word):gsub("'", "'\\''") .. "'"
end

-- What a command printed, and whether it went well. It ends with this process, or when its time is
-- over, since `timeout --foreground` stays in the process group that slurmctld kills. `program` is
-- what the shell makes of it once it has read our settings; `variables` go before those.
local function run(seconds, program, words, variables)
    local lines = { "(set -a", ". " .. quoted(CONF) }
    for name, value in pairs(variables or {}) do
        lines[#lines + 1] = name .. "=" .. quoted(value)
    end
    local command = { 'exec "$TIMEOUT" --foreground -k 5', tostring(seconds), program }
    for _, word in ipairs(words) do
        command[#command + 1] = quoted(word)
    end
    lines[#lines + 1] = table.concat(command, " ") .. ") </dev/null 2>&1"
    lines[#lines + 1] = 'echo "status=$?"' -- Lua 5.1 does not tell how a command ended
    local pipe = io.popen(table.concat(lines, "\n"), "r")
    if not pipe then
        return "cannot start a process", false
    end
    local said = pipe:read("*a") or ""
    pipe:close()
    local output, status = said:match("^(.*)status=(%d+)\n$")
    if status == "124" then
        return "no answer within " .. seconds .. " s", false
    end
    return output or "interrupted", status == "0"
end

local function dray(seconds, words, variables)
    return run(seconds, '"$DRAY"', words, variables)
end

-- One line for `squeue` and `scontrol show job`.
local function reason_in(output)
    local last = "it gave no reason"
    for line in output:gmatch("[^\n]+") do
        if line:match("%S") then
            last = line
        end
    end
    last = last:gsub("^dray: ", ""):gsub("[^\32-\126]", "?")
    return #last <= MOST_REASON and last or last:sub(1, MOST_REASON - 3) .. "..."
end

-- The nodes of a job: newer versions of Slurm hand them over, older ones know them when asked.
local function nodes_of(job_id, job_info)
    if type(job_info) == "table" and job_info["nodes"] then
        return job_info["nodes"]
    end
    local shown, good = run(HOOK_SECONDS, SCONTROL, { "show", "job", "-o", job_id })
    return good and shown:match(" NodeList=(%S+)") or nil
end

-- While slurmctld holds its locks -----------------------------------------------------------------

function slurm_bb_job_process(job_script)
    local wanted, reason = wanted_by(job_script)
    if not wanted then
        return slurm.ERROR, reason
    end
    return slurm.SUCCESS
end

function slurm_bb_pools()
    return slurm.SUCCESS
end

-- What `#SBATCH --image` would have put there, had the image been READY then.
function slurm_bb_paths(job_id, job_script, path_file)
    local result = read_file(beside(job_script, RESULT_FILE))
    if result then
        local written, reason = write_file(path_file, result)
        if not written then
            slurm.log_error("dray: job %s gets no DRAY_IMAGE_ID: %s", job_id, reason)
        end
    end
    return slurm.SUCCESS
end

-- In a process of their own -----------------------------------------------------------------------

-- 22.05 tells whose job it is here, and not to data_in.
function slurm_bb_setup(job_id, uid, gid, pool, bb_size, job_script)
    local written, reason = write_file(beside(job_script, OWNER_FILE), tostring(uid))
    if not written then
        return slurm.ERROR, "dray: " .. reason
    end
    return slurm.SUCCESS
end

-- Asks for the images as the job's user, whose pull it joins and whose kept login it may use, and
-- waits for them. No gateway is no failure: the job waits for one.
function slurm_bb_data_in(job_id, job_script, uid)
    local wanted, reason = wanted_by(job_script)
    if not wanted then
        return slurm.ERROR, reason
    elseif #wanted.images == 0 then
        return slurm.SUCCESS
    end
    local owner = read_file(beside(job_script, OWNER_FILE)) or uid
    if not owner or not tostring(owner):match("^%d+$") then
        return slurm.ERROR, "dray: it is not known whose job this is"
    end
    local words = { "hook", "stage", "--uid", owner, "--wait", STAGE_SECONDS }
    if wanted.system then
        words[#words + 1] = "--system=" .. wanted.system
    end
    words[#words + 1] = "--"
    for _, image in ipairs(wanted.images) do
        words[#words + 1] = image
    end
    local output, good = dray(STAGE_SECONDS + 30, words)
    if not good then
        return slurm.ERROR, "dray: " .. reason_in(output)
    end
    local result = {}
    for line in output:gmatch("[^\n]+") do
        if line:match("^DRAY_[A-Z_]+=[%w:;,]*$") then
            result[#result + 1] = line .. "\n"
        end
    end
    local written, trouble = write_file(beside(job_script, RESULT_FILE), table.concat(result))
    if not written then
        slurm.log_error("dray: job %s gets no DRAY_IMAGE_ID: %s", tostring(job_id), trouble)
    end
    return slurm.SUCCESS
end

-- From 23.02; data_in has waited already.
function slurm_bb_test_data_in()
    return slurm.SUCCESS
end

function slurm_bb_real_size()
    return slurm.SUCCESS
end

-- As PrologSlurmctld does: whichever is first, the other changes nothing. The job starts whatever
-- comes of it, since its nodes can mount by themselves.
function slurm_bb_pre_run(job_id, job_script, uid, gid, job_info)
    local wanted = wanted_by(job_script)
    local owner = read_file(beside(job_script, OWNER_FILE)) or uid
    local nodes = nodes_of(job_id, job_info)
    if not wanted or #wanted.images == 0 or not owner or not nodes then
        return slurm.SUCCESS
    end
    local job = {
        SLURM_JOB_ID = job_id,
        SLURM_JOB_UID = owner,
        SLURM_JOB_NODELIST = nodes,
        SPANK_DRAY_SYSTEM = wanted.system or "",
    }
    local result = read_file(beside(job_script, RESULT_FILE)) or ""
    for name, value in result:gmatch("(%u[%u_]*)=(%S*)") do
        job["SPANK_" .. name] = value
    end
    local output, good = dray(HOOK_SECONDS, { "hook", "allocate", "--strict" }, job)
    if not good then
        slurm.log_error("dray: job %s is not announced: %s", tostring(job_id), reason_in(output))
    end
    return slurm.SUCCESS
end

function slurm_bb_post_run()
    return slurm.SUCCESS
end

function slurm_bb_data_out()
    return slurm.SUCCESS
end

function slurm_bb_test_data_out()
    return slurm.SUCCESS
end

-- Also of a job that was cancelled, failed to stage, or was staging when slurmctld was killed.
function slurm_bb_job_teardown(job_id, job_script)
    os.remove(beside(job_script, OWNER_FILE))
    os.remove(beside(job_script, RESULT_FILE))
    local job = { SLURM_JOB_ID = job_id }
    local output, good = dray(HOOK_SECONDS, { "hook", "release", "--strict" }, job)
    if not good then
        slurm.log_error("dray: job %s is not released: %s", tostring(job_id), reason_in(output))
    end
    return slurm.SUCCESS
end

-- Anybody may ask for this, and 22.05 does not say who: no answer of the gateway's belongs here.
function slurm_bb_get_status()
    return slurm.SUCCESS, "Dray stages images in. See: dray queue, dray jobs, dray nodes.\n"
end
