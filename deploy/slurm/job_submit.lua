-- `--image` of a job becomes a burst buffer line where the image is not READY yet.
--
-- For sites with burst_buffer.lua. Belongs beside slurm.conf as job_submit.lua, with
-- JobSubmitPlugins=lua. A site that has one of its own calls dray_stage_in(job_desc) from it:
--
--     dofile("/etc/slurm/dray_job_submit.lua")   -- this file, under another name, before theirs
--
-- The SPANK plugin has looked the images up, as the user, and started the pulls of those that are
-- missing (if_missing=pull in plugstack.conf). Where there are none, nothing is to be staged in.
-- slurmctld holds its locks meanwhile: nothing here waits for anything.

-- The directive for the images of a job's environment, or nil if there is nothing to stage in.
local function directive(environment)
    local given = {}
    for _, entry in pairs(environment) do
        local name, value = entry:match("^([%w_]+)=(.*)$")
        if name then
            given[name] = value
        end
    end
    if not given.DRAY_IMAGE or not (given.DRAY_PULLS or ""):match("%S") then
        return nil
    end
    local words = { "#BB_LUA dray" }
    for image in given.DRAY_IMAGE:gmatch("[^,;%s]+") do
        -- Anything else here would be a user's own doing; Dray refuses it later, in words.
        words[#words + 1] = "image=" .. image
    end
    if (given.DRAY_SYSTEM or ""):match("^[%w_%.%-]+$") then
        words[#words + 1] = "system=" .. given.DRAY_SYSTEM
    end
    return table.concat(words, " ")
end

function dray_stage_in(job_desc)
    local line = directive(job_desc.spank_job_env or {})
    if not line or job_desc.user_id == 0 then
        return -- Slurm gives root no burst buffers
    end
    if ("\n" .. (job_desc.script or "")):find("\n#BB_LUA dray ", 1, true) then
        return -- its user has written one
    end
    local others = job_desc.burst_buffer
    job_desc.burst_buffer = others and others ~= "" and others .. "\n" .. line or line
end

function slurm_job_submit(job_desc, part_list, submit_uid)
    dray_stage_in(job_desc)
    return slurm.SUCCESS
end

function slurm_job_modify(job_desc, job_rec, part_list, modify_uid)
    return slurm.SUCCESS
end
